"""A run's folder at an executor: it waits, works, and goes on elsewhere where its node is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from core.cluster import node
from core.cluster.executor import Executor, Outcome, Task
from core.errors import ArtifactError
from core.files import remove, write_text
from core.runs.artifacts import STOP
from core.runs.recorder import Recorder
from core.runs.status import Status, read_status, write_status
from core.runs.watch import locked

#: A worker's folder is tried again so often after its node was lost.
TRIES = 3
BEAT_S = 2.0
#: What a node wrote may be seen so much later: shared disks keep what they know of files for a while.
SEEN_S = 60.0
OVER = ("finished", "failed", "stopped")
ROOT = Path(__file__).resolve().parents[2]


class Placed:
    """A run's folder in the hands of an executor.

    The status names the process that waits as the run's: it is on the machine whose queue the run stands in.

    Args:
        module: the worker's; say: told what people should know, such as a lost node.
    """

    def __init__(self, executor: Executor, run_dir: Path, module: str, say: Callable[[str], None]) -> None:
        self.run_dir, self._executor, self._module, self._say = run_dir, executor, module, say
        self._task: Task | None = None
        self._tries, self._beaten, self._ended = 0, 0.0, (0.0, Outcome("done"))

    @property
    def status(self) -> Status:
        """Where it stands, as it was written last."""
        return read_status(self.run_dir)

    def submit(self, keeper: Status, versions: dict[str, str]) -> None:
        """Give it to the executor. Raises LaunchError, StorageError.

        Args:
            keeper: whose pid, start and host are this process's.
        """
        self._keeper, self._versions = keeper, versions
        self._tries += 1
        lacks = self._executor.shortage()
        message = f"Waiting for {self._executor.title}{f': {lacks}' if lacks else ''}"
        now = time.time()
        with locked(self.run_dir.parent):
            waiting = replace(
                self.status,
                pid=keeper.pid,
                pid_started=keeper.pid_started,
                host=keeper.host,
                state="starting",
                message=message,
                started=now,
                heartbeat=now,
                ended=None,
                error=None,
                node="",
                gpu="",
            )
            write_status(self.run_dir, waiting)
        self._task = self._executor.submit(
            {
                "root": str(ROOT),
                "run_dir": str(self.run_dir),
                "module": self._module,
                "keeper": [keeper.host, keeper.pid, keeper.pid_started],
                "versions": versions,
            }
        )

    def over(self) -> bool:
        """Look after it; whether it has come to its end, which its status tells. Raises StorageError."""
        if self._task is None:
            return True
        outcome = self._outcome()
        if outcome is None:
            self._beat()
            return self._task is None
        try:
            status = self.status
        except ArtifactError as error:
            return self._fail(f"{self.run_dir} cannot be read any more: {error}")
        if status.state in OVER:
            return self._forget()
        if outcome.ending == "done" and time.time() - self._ended[0] < SEEN_S and status.state != "crashed":
            return False
        return self._again(outcome, status)

    def _outcome(self) -> Outcome | None:
        if not self._ended[0] and self._task and (outcome := self._task.outcome()):
            self._ended = time.time(), outcome
        return self._ended[1] if self._ended[0] else None

    def _again(self, outcome: Outcome, status: Status) -> bool:
        """Try elsewhere what may go on; everything else has failed."""
        if (self.run_dir / STOP).exists():
            return self._stopped()
        if outcome.ending in ("refused", "broken"):
            return self._fail(outcome.text)
        on = status.node or "its node"
        why = outcome.text or "its worker ended without a word"
        if self._tries > TRIES:
            return self._fail(f"{on} was lost, after {TRIES} before it: {why}")
        self._say(f"{on} was lost ({why}); it goes on elsewhere, try {self._tries + 1} of {TRIES + 1}.")
        self._ended = 0.0, Outcome("done")
        self.submit(self._keeper, self._versions)
        return False

    def _beat(self) -> None:
        """Show that whoever waits for a node lives; end what is to stop before it began."""
        if time.time() - self._beaten < BEAT_S:
            return
        self._beaten = time.time()
        stop = (self.run_dir / STOP).exists()
        with locked(self.run_dir.parent):
            status = self.status
            if status.state == "starting" and not stop:
                write_status(self.run_dir, replace(status, heartbeat=self._beaten))
            taken = status.state != "starting"
        if stop and not taken and self._task:
            self._task.cancel()
            self._stopped()

    def _stopped(self) -> bool:
        with Recorder(self.run_dir, kept=True) as recorder:
            recorder.end("stopped", "Stopped before a node went on with it")
        return self._forget()

    def _fail(self, message: str) -> bool:
        fix = "Resume it: what is finished is kept. See the log, too."
        with Recorder(self.run_dir, kept=True) as recorder:
            recorder.end("failed", message, {"type": "LaunchError", "message": message, "fix": fix})
        return self._forget()

    def _forget(self) -> bool:
        self._task = None
        return True

    def stop(self) -> None:
        """Ask it to stop: at its next step, or at once where it waits."""
        if self._task is not None:
            write_text(self.run_dir / STOP, "")
            self._beaten = 0.0

    def ready(self) -> None:
        """Take back an earlier request to stop. Raises StorageError."""
        remove(self.run_dir / STOP)


def versions() -> dict[str, str]:
    """What every node has to have alike."""
    return node.versions_in(str(ROOT))
