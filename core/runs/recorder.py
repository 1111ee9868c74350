"""What a worker says while it works: status, events and log of one run."""

from __future__ import annotations

import _thread
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from core.errors import ArtifactError, LaunchError, StopRequested, StorageError, storage_error
from core.files import never_made_again, regular, remove
from core.runs.artifacts import EVENTS, LOG, STOP
from core.runs.events import Event, EventType, EventWriter, Level, in_words
from core.runs.processes import host, started_at
from core.runs.status import ENDED, Status, read_status, write_status

BEAT_S = 2.0
#: Progress is written at most this often.
THROTTLE_S = 0.25
#: Given back when the disk is full, so that the last status can still be written.
RESERVE = ".reserve"
RESERVE_BYTES = 64 * 1024
GONE = "{} is gone: somebody removed the run's folder, so its worker ends."


class Recorder:
    """Keeps `status.json`, `events.jsonl` and `log.txt` of one run; a thread shows that the worker lives.

    Use as a context manager. Every method raises StopRequested once somebody asked the run to stop
    (`stage` and `progress`), and StorageError when the disk is full.

    Args:
        on_event: called with every event, e.g. to draw a progress bar.
        kept: another process waits for this one, and is the run's: on a cluster.
        clock: seconds, for throttling and the time left.
    """

    def __init__(
        self,
        run_dir: Path,
        on_event: Callable[[Event], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        kept: bool = False,
    ) -> None:
        self.run_dir = run_dir
        self._kept = kept
        self.status = replace(read_status(run_dir), error=None) if kept else mine(read_status(run_dir))
        self._on_event, self._clock = on_event, clock
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._stage_began, self._last_progress, self._done_before = clock(), clock(), 0
        self._began = clock()
        self._guard = never_made_again(run_dir)
        self._events = EventWriter(run_dir / EVENTS)
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Recorder:
        self._guard.__enter__()
        with suppress(OSError), open(self.run_dir / RESERVE, "wb", opener=regular) as reserve:
            reserve.write(bytes(RESERVE_BYTES))
        self._write()
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._heart.join()
        self._events.close()
        with suppress(StorageError):
            remove(self.run_dir / RESERVE)
        self._guard.__exit__(kind, error, trace)

    @property
    def seconds(self) -> float:
        """How long this run has been at work, with what it did before it was resumed."""
        return self.status.before_s + self._clock() - self._began

    def begin(self, stages: Mapping[str, str]) -> None:
        """Say which stages there will be: name -> what people read."""
        with self._lock:
            self.status.stages, self.status.titles = list(stages), dict(stages)

    def stage(self, name: str) -> None:
        """Begin a stage. Raises StopRequested."""
        self.check_stop()
        stages = self.status.stages
        with self._lock:
            self.status.stage, self.status.progress, self.status.eta_s = name, 0.0, None
            self.status.message = ""
        self._stage_began, self._last_progress, self._done_before = self._clock(), 0.0, 0
        self.log(f"stage {name}")
        index = stages.index(name) if name in stages else 0
        self._event("stage", index=index, stages=stages, title=self.status.title)
        self._write()

    def goes_on(self, done: int) -> None:
        """So much of this stage was done before the run was resumed: it took no time in this one."""
        self._stage_began, self._done_before = self._clock(), done

    def progress(self, done: int, total: int, unit: str = "steps") -> None:
        """Tell how far the stage is. Raises StopRequested."""
        self.check_stop()
        now = self._clock()
        if done < total and now - self._last_progress < THROTTLE_S:
            return
        self._last_progress = now
        spent, made = now - self._stage_began, done - self._done_before
        with self._lock:
            self.status.progress = done / total if total else 1.0
            self.status.eta_s = spent * (total - done) / made if made > 0 else None
            self.status.message = f"{done} of {total} {unit}"
        self._event("progress", done=done, total=total, unit=unit)
        self._write()

    def counter(self, unit: str) -> Callable[[int, int], None]:
        """`progress` for a stage function's `on_progress`."""
        return lambda done, total: self.progress(done, total, unit)

    def works_on(self, gpu: str, node: str | None = None) -> None:
        """Say which card the run computes on, empty for a CPU; of one that is split, on which nodes."""
        with self._lock:
            self.status.gpu = gpu
            self.status.node = self.status.node if node is None else node

    def metric(self, name: str, step: float, value: float) -> None:
        """A point of a curve."""
        self._event("metric", name=name, step=step, value=value)

    def message(self, text: str, level: Level = "info") -> None:
        """A sentence for people."""
        self.log(in_words(text, level))
        self._event("message", text=text, level=level)

    def warn(self, text: str) -> None:
        """What people should know before they trust the result."""
        self.message(text, "warning")

    @contextmanager
    def heard_by(self, hear: Callable[[Event], None]) -> Iterator[None]:
        """Call `hear` with every event, too, for the length of the block."""
        before = self._on_event

        def both(event: Event) -> None:
            if before:
                before(event)
            hear(event)

        self._on_event = both
        try:
            yield
        finally:
            self._on_event = before

    def artifact(self, name: str) -> None:
        """A file is there now."""
        self._event("artifact", name=name)

    def check_stop(self) -> None:
        """Raises StopRequested once somebody asked this run to stop."""
        if not self.run_dir.is_dir():
            raise LaunchError(GONE.format(self.run_dir))
        if (self.run_dir / STOP).exists():
            raise StopRequested("Stopped on request; what is finished is kept.")

    def log(self, text: str) -> None:
        """Add a line to the log. Raises StorageError."""
        try:
            with open(self.run_dir / LOG, "a", encoding="utf-8", opener=regular) as file:
                file.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        except OSError as error:
            raise storage_error(self.run_dir / LOG, error) from error

    def end(self, state: str, message: str = "", error: dict[str, str] | None = None) -> None:
        """Write the last status; room for it was kept aside. Raises StorageError if even that fails."""
        self._over.set()
        for name in (RESERVE, STOP):
            with suppress(StorageError):  # what stands in the way of a name must not hide how the run ended
                remove(self.run_dir / name)
        with self._lock:
            status = self.status
            status.state, status.message, status.error = state, message, error
            status.ended, status.eta_s = time.time(), None
            status.progress = 1.0 if state == "finished" else status.progress
        self._write(force=True)
        # On a full disk the status, which is written already, says more than these lines.
        with suppress(StorageError):
            if error:
                self._event("error", **error)
            self._event("done", state=state)

    def _event(self, type: EventType, /, **data: Any) -> None:
        event = self._events.write(type, self.status.stage, **data)
        if self._on_event:
            self._on_event(event)

    def _write(self, force: bool = False) -> None:
        with self._lock:
            if self._over.is_set() and not force:
                return  # the last status is written; a late heartbeat must not touch it
            status = self.status
            status.heartbeat = time.time()
            if not force:
                status.state = "stopping" if (self.run_dir / STOP).exists() else "running"
            write_status(self.run_dir, status)

    def _taken_over(self) -> bool:
        """Whether somebody gave this run up for lost: another may work on it by now."""
        with suppress(ArtifactError):
            status = read_status(self.run_dir)
            return status.started != self.status.started or status.state in ENDED
        return False

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            if self._kept and self._taken_over():
                self._over.set()
                _thread.interrupt_main()
                return
            # The disk may have room again at the next beat; the main thread reports it if not.
            with suppress(StorageError):
                self._write()
            if not self.run_dir.is_dir():
                _thread.interrupt_main()  # it may be long until the next step
                return


class Mute(Recorder):
    """What a process says that trains along: nothing, for the run is another's."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def log(self, text: str) -> None:
        """Write nothing."""

    def _event(self, type: EventType, /, **data: Any) -> None:
        """Write nothing."""


def mine(status: Status) -> Status:
    """The status of a run that this process works on from now."""
    pid = os.getpid()
    return replace(
        status,
        state="running",
        pid=pid,
        pid_started=started_at(pid),
        host=host(),
        started=status.started or time.time(),
        heartbeat=time.time(),
        error=None,
    )
