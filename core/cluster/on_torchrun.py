"""Several processes on this machine, for trainings that share them: torchrun starts, watches, ends them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from core.cluster.executor import Outcome
from core.errors import LaunchError
from core.runs.artifacts import LOG

ROOT = Path(__file__).resolve().parents[2]
#: What is said of a run whose processes ended before its status said how.
_SILENT = "One of its processes was ended before it could say why; see the log"
_LAUNCHER = (sys.executable, "-m", "core.cluster.launcher")


class Torchrun:
    """So many processes on this machine."""

    def __init__(self, count: int) -> None:
        self.title, self._count = f"{count} processes", count
        self._started: list[Started] = []

    def submit(self, call: dict[str, Any]) -> Started:
        """Start them. Raises LaunchError."""
        self._started.append(start(self._count, Path(call["run_dir"]), call["keeper"]))
        return self._started[-1]

    def shortage(self) -> str:
        """What lacks is found when they start."""
        return ""

    def close(self) -> None:
        """End what is still at work."""
        for started in self._started:
            started.cancel()


class Started:
    """The launcher of a run's processes."""

    def __init__(self, launcher: subprocess.Popen[bytes]) -> None:
        self._launcher = launcher

    def outcome(self) -> Outcome | None:
        """How it ended; None as long as it works. What the run's status says comes before that."""
        return None if self._launcher.poll() is None else Outcome("broken", _SILENT)

    def wait(self) -> None:
        """Go on when it has ended."""
        self._launcher.wait()

    def cancel(self) -> None:
        """End it at once, with all that it started."""
        with suppress(psutil.Error):
            launcher = psutil.Process(self._launcher.pid)
            for process in [launcher, *launcher.children(recursive=True)]:
                with suppress(psutil.Error):
                    process.kill()
        self._launcher.wait()


def start(count: int, run_dir: Path, waiting: Sequence[Any]) -> Started:
    """Start processes that run the spec in a folder together. Raises LaunchError.

    Args:
        waiting: host, pid and start time of the process that waits, which the run belongs to.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    try:
        with (run_dir / LOG).open("ab") as log:
            return Started(
                subprocess.Popen(
                    [*_LAUNCHER, str(count), str(run_dir.absolute()), *map(str, waiting)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=ROOT,  # `-m` looks there first
                    env={**os.environ, "PYTHONPATH": path},
                    start_new_session=True,  # Ctrl-C asks the process that waits to stop
                )
            )
    except OSError as error:
        raise LaunchError(
            f"{count} processes could not be started: {error}; free some memory, or write fewer processes."
        ) from error
