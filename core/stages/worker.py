"""`python -m core.stages.worker RUN_DIR`: run one spec and write its directory.

The process splits before torch is loaded: the child works, the parent only waits. So even a child
that is killed is noticed at once, and the next queued run starts without any dashboard.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

from core.cluster import keeper, on_torchrun
from core.cluster.scatter import scatter, splits
from core.cluster.split_sweep import seed
from core.errors import (
    InputError,
    LaunchError,
    PruneError,
    StopRequested,
    StorageError,
    full_disk,
    storage_error,
)
from core.files import write_text
from core.methods import processes_of
from core.runs import launch, watch
from core.runs.artifacts import LOG, STOP, read_spec
from core.runs.company import company
from core.runs.events import Event
from core.runs.processes import host, signals_wait
from core.runs.recorder import GONE, Recorder, mine
from core.runs.status import write_status
from core.runs.watch import DAMAGED, locked, read
from core.spec.run import RunSpec

Job = Callable[[Path, Recorder], None]
#: What a node of a cluster is to import: its `kept` does the work.
NODE = "core.stages.worker"


def run(
    spec: RunSpec,
    runs_dir: str | Path = "runs",
    *,
    on_begin: Callable[[Path], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Path:
    """Do what a spec asks in this process, and leave everything that comes of it in a new folder.

    Args:
        on_begin: told that folder before anything is loaded; on_event: called with every event.

    Returns:
        The run's directory, as `python -m core runs list` and the dashboard show it.

    Raises:
        InputError: the spec asks for what cannot be; nothing was started.
        PruneError: whatever made it fail or stop; the directory says so, too.
    """
    from core.stages.check import check

    spec = check(spec)
    run_dir = launch.create(Path(runs_dir), spec, mine=True)
    if on_begin is not None:
        on_begin(run_dir)
    try:
        execute(run_dir, on_event)
    finally:
        with suppress(PruneError):
            launch.start_next(run_dir.parent)  # a run may have been queued behind this one
    return run_dir


def execute(run_dir: Path, on_event: Callable[[Event], None] | None = None, job: Job | None = None) -> None:
    """Run the spec in `run_dir` in this process; its status says how that went.

    Args:
        on_event: called with every event.
        job: what to do; the pipeline if None.

    Raises:
        PruneError: whatever made it fail or stop, after it was written down.
        Exception: a bug of ours, after it was written down with its traceback.
    """
    adopt(run_dir)
    asked = read_spec(run_dir)
    if job is None and not asked.cluster.here:
        if not splits(asked):
            return keeper.keep(run_dir, NODE, on_event)
        job = partial(scatter, module=NODE)
    if job is None and _processes(asked) > 1:
        return keeper.keep(run_dir, NODE, on_event)
    _recorded(run_dir, on_event, job or _pipeline)


def kept(run_dir: Path, waiting: tuple[str, int, float], job: Job | None = None) -> None:
    """Run the spec in `run_dir` for a process that waits for it; its status says how that went.

    Args:
        waiting: host, pid and start time of the process that waits, which the run belongs to.
        job: what to do; the pipeline if None.
    """
    if job is None and (count := _processes(read_spec(run_dir))) > 1:
        return on_torchrun.start(count, run_dir, waiting).wait()
    adopt_for(run_dir, waiting)
    seed(run_dir)
    with suppress(Exception):  # what went wrong was written down, and who waits reads that
        _recorded(run_dir, None, job or _pipeline, kept=True)


def _processes(spec: RunSpec) -> int:
    """How many processes this one is to start: it is one of them if a launcher has started some already."""
    with suppress(InputError):  # which the run itself will say
        return 1 if company() else processes_of(spec)
    return 1


@contextmanager
def _signals_ask(run_dir: Path) -> Iterator[None]:
    """A launcher of several ends them by signals: they ask the run to stop, and do not disturb its end."""
    if company() is None:
        yield
        return
    try:
        with signals_wait(run_dir):
            yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _led(job: Job, run_dir: Path, recorder: Recorder) -> None:
    """Do a job; a launcher also asks to stop because another of its processes is gone, which is a failure."""
    try:
        job(run_dir, recorder)
    except StopRequested as error:
        if company():
            from core.stages.together import why_lost

            if why := why_lost():
                raise LaunchError(why) from error
        raise


def _recorded(
    run_dir: Path, on_event: Callable[[Event], None] | None, job: Job, *, kept: bool = False
) -> None:
    with _signals_ask(run_dir), Recorder(run_dir, on_event, kept=kept) as recorder:
        try:
            _led(job, run_dir, recorder)
        except (StopRequested, KeyboardInterrupt) as error:
            _require(run_dir)
            before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
            try:
                recorder.end("stopped", "Stopped on request; what is finished is kept")
            finally:
                signal.signal(signal.SIGTERM, before)  # whoever called may still be ended
            raise StopRequested(f"Stopped. Go on with: python -m core runs resume {run_dir.name}") from error
        except Exception as error:
            _require(run_dir)
            failure = translate(error, run_dir)
            # Written first: a full disk leaves room for this and perhaps for nothing else.
            recorder.end("failed", str(failure), explain(failure))
            with suppress(StorageError):
                recorder.log("".join(traceback.format_exception(error)).rstrip())
            raise failure from error
        recorder.end("finished")


def _require(run_dir: Path) -> None:
    """Raises LaunchError if the run's folder was removed: there is nowhere to say how it went."""
    if not run_dir.is_dir():
        raise LaunchError(GONE.format(run_dir))


def _pipeline(run_dir: Path, recorder: Recorder) -> None:
    from transformers.utils import logging

    from core.runs.track import mirrored
    from core.stages import pipeline
    from core.stages.check import settle

    logging.disable_progress_bar()  # a log file is no place for bars
    asked = read_spec(run_dir)
    if (spec := settle(asked)) != asked:  # a request from the page may not know the model yet
        launch.rewrite(run_dir, spec)
    if spec.warning:
        recorder.warn(spec.warning)
    for idle in spec.idle:
        recorder.warn(idle)
    with mirrored(spec, run_dir, recorder):
        pipeline.run(spec, run_dir, recorder)


def adopt(run_dir: Path) -> None:
    """Take over a run that waits for this process. Raises LaunchError if it does not wait."""
    with locked(run_dir.parent):  # a launcher writes down whom it started before it lets go
        status = read(run_dir)
        if status.state == DAMAGED and status.error:
            raise LaunchError(f"{status.error['message']} {status.error['fix']}")
        launch.require_consent(run_dir, read_spec(run_dir))
        ours = (os.getpid(), os.getppid(), None)
        if status.state != "queued" and not (status.state == "starting" and status.pid in ours):
            raise LaunchError(f"{run_dir.name} is {status.state} and does not wait for a worker; resume it.")
        write_status(run_dir, mine(status))


def adopt_for(run_dir: Path, waiting: tuple[str, int, float]) -> None:
    """Take over a run for the process that waits. Raises LaunchError if it waits for another, or not."""
    with locked(run_dir.parent):
        status = read(run_dir)
        if status.state != "starting" or (status.host, status.pid, status.pid_started) != waiting:
            raise LaunchError(f"{run_dir.name} is {status.state} and does not wait for this node any more.")
        now, node = time.time(), "" if company() and status.executor == "local" else host()
        write_status(
            run_dir, replace(status, state="running", message="", node=node, started=now, heartbeat=now)
        )


def translate(error: Exception, run_dir: Path) -> Exception:
    """What a library says about memory or the disk, as one of our errors; anything else as it is."""
    if isinstance(error, PruneError):
        return error
    if full_disk(error):
        return storage_error(run_dir, error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        from core.capture.peak import memory_words

        where = memory_words()
        return LaunchError(
            f"Memory ran out{f' ({where})' if where else ''}; use fewer samples (--samples), shorter windows "
            "(--length), --dtype bfloat16, or --device cpu."
        )
    return error


def explain(error: Exception) -> dict[str, str]:
    """An error as `status.json` keeps it: type, message and what to do."""
    kind = type(error).__name__
    if isinstance(error, StorageError):
        fix = "Free some space or choose another runs folder, then resume this run; nothing finished is lost."
    elif isinstance(error, InputError):
        fix = "Change what the message names, and launch it again; of a pruning run, Clone fills in the form."
    elif isinstance(error, PruneError):
        fix = "See the log, then resume the run or clone it with other settings."
    else:
        message = f"This is a bug in the workbench: {kind}: {error}"
        return {"type": kind, "message": message, "fix": f"Please report it with {LOG}, which says where."}
    return {"type": kind, "message": str(error), "fix": fix}


def main(run_dir: Path, job: Job | None = None) -> int:
    """Work in a child, wait for it, and start the next queued run. Returns the child's exit code."""
    child = os.fork()
    if child == 0:
        return _child(run_dir, job)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    watch.refresh(run_dir, code, of=(child, os.getpid()))
    try:
        launch.start_next(run_dir.parent)
    except PruneError as error:
        print(error, file=sys.stderr)
    return abs(code)


def _child(run_dir: Path, job: Job | None) -> int:
    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        write_text(run_dir / STOP, "")  # a library may swallow the exception; the file stays
        raise StopRequested("Stopped by SIGTERM.")

    signal.signal(signal.SIGTERM, ask_to_stop)
    try:
        execute(run_dir, job=job)
    except StopRequested:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending already
        return 0
    except PruneError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
