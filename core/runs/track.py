"""The curves and results of a run, mirrored to where people keep theirs.

Each tracker is talked to by a process of its own (`core.runs.tracker`), and that by a thread: one that is
slow, out of reach or broken costs the run nothing but a warning.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from core.errors import ArtifactError
from core.runs.artifacts import read_metrics
from core.runs.command_line import TAKES, command_line
from core.runs.events import Event
from core.runs.launch import ROOT
from core.runs.recorder import Recorder
from core.spec.fields import field_of
from core.spec.run import RunSpec

#: The name under which trackers gather runs.
PROJECT = "pruneviz"
#: Seconds that the end of a run waits for what was not yet sent, all trackers together.
_PATIENCE_S = 30.0
#: So many points may wait to be sent.
_MOST = 100_000
_TRACKER = (sys.executable, "-m", "core.runs.tracker")


class _Mirror:
    """One tracker's process, and the thread that talks to it.

    Attributes:
        trouble: why it is no more, in words; empty while it works.
    """

    def __init__(self, name: str, run_dir: Path, settings: Mapping[str, Any]) -> None:
        self.name, self.trouble = name, ""
        self._points: queue.Queue[list[Any] | None] = queue.Queue(_MOST)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [*_TRACKER, name, str(run_dir)], cwd=ROOT, text=True,
                stdin=subprocess.PIPE, stdout=self._said, stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C stops the run, which then sends what is left
            )  # fmt: skip
        except OSError:
            self._said.close()
            raise
        self._thread = threading.Thread(target=self._talk, args=(settings,), name=name, daemon=True)
        self._thread.start()

    def send(self, name: str, value: float, step: float) -> None:
        """Leave a point to be sent, if anybody is there."""
        if self.trouble:
            return
        if self._process.poll() is not None:
            self.trouble = self._last_words()
        elif math.isfinite(value):
            with suppress(queue.Full):  # who takes nothing is told of at the end
                self._points.put_nowait([name, value, step])

    def close(self) -> None:
        """Nothing more comes."""
        with suppress(queue.Full):
            self._points.put_nowait(None)

    def end(self, deadline: float) -> None:
        """Wait for what is left until then, by the monotonic clock, and no longer."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        try:
            code = self._process.wait(max(0.0, deadline - time.monotonic()))
            self.trouble = self.trouble or (self._last_words() if code else "")
        except subprocess.TimeoutExpired:
            self.trouble = f"it does not take what is sent; given up after {_PATIENCE_S:.0f} s"
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # with what it has started itself
            self._process.wait()
        self._said.close()

    def _talk(self, settings: Mapping[str, Any]) -> None:
        pipe = self._process.stdin
        assert pipe is not None, "its input is a pipe"
        with suppress(OSError), pipe:  # it has ended, and its last words say why
            line: Any = settings
            while line is not None:
                pipe.write(json.dumps(line) + "\n")
                pipe.flush()
                line = self._points.get()

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines() or ["it ended without a word"]
        missing = f"; run pip install {self.name}" if "No module named" in lines[-1] else ""
        return f"{lines[-1][:300]}{missing}"


@contextmanager
def mirrored(spec: RunSpec, run_dir: Path, recorder: Recorder) -> Iterator[None]:
    """Send every point of the run's curves, and at the end its results, to the trackers asked for."""
    if not spec.track:
        yield
        return
    mirrors = list(_begun(spec, run_dir, recorder))
    told: set[str] = set()

    def tell() -> None:
        for mirror in mirrors:
            if mirror.trouble and mirror.name not in told:
                told.add(mirror.name)
                recorder.warn(f"metrics are not mirrored to {mirror.name}: {mirror.trouble}")

    def hear(event: Event) -> None:
        if event.type == "metric":
            for mirror in mirrors:
                mirror.send(event.data["name"], event.data["value"], event.data["step"])
            tell()

    try:
        with recorder.heard_by(hear):
            yield
        for name, value in _results(run_dir).items():
            for mirror in mirrors:
                mirror.send(f"result.{name}", value, 0)
    finally:
        deadline = time.monotonic() + _PATIENCE_S
        for mirror in mirrors:
            mirror.close()
        for mirror in mirrors:
            mirror.end(deadline)
        tell()


def _begun(spec: RunSpec, run_dir: Path, recorder: Recorder) -> Iterator[_Mirror]:
    """The trackers that can be started, and a warning of each other one."""
    for name in spec.track:
        try:
            yield _Mirror(name, run_dir, _settings(spec))
        except OSError as error:
            recorder.warn(f"metrics are not mirrored to {name}: {error}")


def _settings(spec: RunSpec) -> dict[str, Any]:
    """What a run was asked for, flat: dotted path -> text, number or switch."""
    values = {path: field_of(spec, path) for path in TAKES[spec.goal]}
    about = {"goal": spec.goal, "model": spec.model.source, "command": command_line(spec)}
    return about | {path: v if isinstance(v, (bool, int, float)) else str(v) for path, v in values.items()}


def _results(run_dir: Path) -> dict[str, float]:
    """The numbers of `metrics.json`, if the run has left one."""
    try:
        metrics = read_metrics(run_dir)
    except ArtifactError:
        return {}
    numbers = {name: v for name, v in metrics.items() if isinstance(v, (int, float))}
    return {name: float(value) for name, value in numbers.items() if not isinstance(value, bool)}
