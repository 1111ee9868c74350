"""`status.json`: where a run stands."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, FiniteFloat

from core.files import read_record, reading, write_json

STATUS = "status.json"
STATES = ("queued", "starting", "running", "stopping", "finished", "failed", "stopped", "crashed")
#: Seconds up to the year 10000: later ones no calendar writes. Since the epoch, and of a length.
LAST_S = 253_402_300_800.0
Moment = Annotated[FiniteFloat, Field(ge=0, lt=LAST_S)]
Length = Annotated[FiniteFloat, Field(gt=-LAST_S, lt=LAST_S)]
#: The system's numbers of processes; 0 and those below 0 mean groups of them where signals are sent.
Pid = Annotated[int, Field(ge=1, lt=2**31)]
ENDED = ("finished", "failed", "stopped", "crashed")


@dataclass
class Status:
    """`status.json`: where a run stands.

    Attributes:
        state: one of `STATES`.
        stage: the stage being worked on; stages: all of them, in order; titles: what people read of each.
        progress: share of the stage done, in [0, 1]; message: the same for people.
        pid, pid_started: the worker and when it started (seconds since the epoch): both name a process.
        heartbeat: when the worker last wrote, seconds since the epoch.
        host: the machine that process is on; a pid means nothing on another one.
        executor: what starts the worker; of a cluster, pid and host are those of the process that waits.
        node: of a cluster, where the worker works; gpu: what it computes on there, empty for a CPU.
        created, started, ended: seconds since the epoch; started is when it was last started or resumed.
        before_s: seconds at work before it was last resumed.
        eta_s: seconds left in this stage, None if unknown.
        error: {"type", "message", "fix"} of a failed run; a crashed one has its last `log` lines too.
    """

    state: str = "queued"
    stage: str = ""
    stages: list[str] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)
    progress: Length = 0.0
    message: str = ""
    pid: Pid | None = None
    pid_started: Moment | None = None
    host: str = ""
    heartbeat: Moment = 0.0
    created: Moment = 0.0
    started: Moment | None = None
    ended: Moment | None = None
    before_s: Length = 0.0
    eta_s: Length | None = None
    error: dict[str, str] | None = None
    executor: str = "local"
    node: str = ""
    gpu: str = ""

    @property
    def place(self) -> str:
        """Node and card, as far as they are told; empty for a CPU of this machine."""
        return " · ".join(part for part in (self.node, self.gpu) if part)

    @property
    def title(self) -> str:
        """What people read of the stage being worked on; empty before the first."""
        return self.title_of(self.stage)

    def title_of(self, stage: str) -> str:
        """What people read of a stage; release 0.1 wrote down only its name."""
        return self.titles.get(stage) or stage.replace("_", " ").capitalize()

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
    status = read_record(run_dir / STATUS, Status, remedy="")
    with reading(run_dir / STATUS, remedy=""):
        if status.state not in STATES:
            raise ValueError(f"there is no state {status.state!r}")
    return status
