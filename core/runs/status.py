"""`status.json`: where a run stands."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from core.errors import ArtifactError
from core.files import read_json, write_json

STATUS = "status.json"

STATES = ("queued", "starting", "running", "stopping", "finished", "failed", "stopped", "crashed")

ENDED = ("finished", "failed", "stopped", "crashed")


@dataclass
class Status:
    """`status.json`: where a run stands.

    Attributes:
        state: one of `STATES`.
        stage: the stage being worked on; stages: all of them, in order.
        progress: share of the stage done, in [0, 1]; message: the same for people.
        pid, pid_started: the worker and when it started (seconds since the epoch): both name a process.
        heartbeat: when the worker last wrote, seconds since the epoch.
        host: the machine the worker runs on; a pid means nothing on another one.
        created, started, ended: seconds since the epoch; started is when it was last started or resumed.
        before_s: seconds at work before it was last resumed.
        eta_s: seconds left in this stage, None if unknown.
        error: {"type", "message", "fix"} of a failed run; a crashed one has its last `log` lines too.
    """

    state: str = "queued"
    stage: str = ""
    stages: list[str] = field(default_factory=list)
    progress: float = 0.0
    message: str = ""
    pid: int | None = None
    pid_started: float | None = None
    host: str = ""
    heartbeat: float = 0.0
    created: float = 0.0
    started: float | None = None
    ended: float | None = None
    before_s: float = 0.0
    eta_s: float | None = None
    error: dict[str, str] | None = None

    def worked_s(self, now: float) -> float | None:
        """Seconds at work until it ended, or until now; pauses are left out. None before it has started."""
        end = self.ended if self.state in ENDED else now
        if self.started is None or end is None:
            return self.before_s or None
        return self.before_s + end - self.started


def write_status(run_dir: Path, status: Status) -> None:
    """Replace `status.json`."""
    write_json(run_dir / STATUS, asdict(status))


def read_status(run_dir: Path) -> Status:
    """Raises ArtifactError."""
    raw = read_json(run_dir / STATUS)
    try:
        status = Status(**raw)
        if status.state not in STATES:
            raise ValueError(f"there is no state {status.state!r}")
        for number in (status.heartbeat, status.created, status.progress):
            float(number)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{run_dir / STATUS} is damaged ({error}).") from error
    return status
