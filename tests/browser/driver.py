"""Start the dashboard and a Chromium that can reach nothing but it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str | None:
    """The first Chromium or Chrome on the PATH."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a first request is answered."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as reply:
        return bool(reply.status == 200)
    return False


def start(
    command: list[str], url: str, log: Path, seconds: float = 90, variables: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], float]:
    """Run `command` until `url` answers: the process and the seconds. Raises RuntimeError with its log."""
    began = time.perf_counter()
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=out,
            stderr=out,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(variables or {})},
        )
    while time.perf_counter() - began < seconds:
        if answers(url):
            return process, time.perf_counter() - began
        if process.poll() is not None:
            break
        time.sleep(0.02)
    process.kill()
    process.wait()
    raise RuntimeError(f"{command} did not answer at {url}:\n{log.read_text()[-2000:]}")


class Dashboard:
    """One running dashboard; `stop` and `start` again to see that runs survive it.

    `options` and environment `variables` come on top of runs folder, model and port.
    """

    def __init__(
        self,
        runs_dir: Path,
        model: str = "demo",
        port: int | None = None,
        options: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.runs_dir, self.model, self.port = runs_dir, model, port or free_port()
        self.options, self.variables = options, variables
        self.url = f"http://127.0.0.1:{self.port}/"
        self.log = runs_dir.parent / f"dashboard-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it; returns the seconds to the first answered request."""
        runs = ["--runs-dir", str(self.runs_dir), "--model", self.model, "--port", str(self.port)]
        command = [sys.executable, "app.py", *runs, *self.options]
        self.process, seconds = start(command, self.url, self.log, variables=self.variables)
        return seconds

    def stop(self) -> None:
        """End the process and wait for it; one that does not end when asked is killed: an error."""
        if self.process is None:
            return
        process, self.process = self.process, None
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser, as a Playwright `Browser`, that resolves no name but 127.0.0.1."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(),
            args=[
                "--no-sandbox", "--disable-gpu",
                "--disable-background-networking", "--disable-component-update",
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            ],
        )  # fmt: skip
        yield browser
        browser.close()
