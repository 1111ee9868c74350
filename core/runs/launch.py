"""Create, queue, start, stop and resume runs.

One worker at a time per runs folder; those that only wait for a cluster do not count. Every decision is taken
under a lock on that folder, so two dashboards never start the same run twice; a worker that ends starts the
next queued run itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import IO

from core.errors import ArtifactError, InputError, LaunchError, StorageError, storage_error
from core.files import regular, remove, write_text
from core.runs.artifacts import JOBS, LOG, SPEC, STOP, read_spec
from core.runs.company import require_alone
from core.runs.origin import made_here, sign
from core.runs.paths import absolute
from core.runs.processes import cancel_jobs, host, kill_worker, started_at, works_on
from core.runs.status import ENDED, Status, read_status, write_status
from core.runs.watch import ACTIVE, list_runs, locked, lost, read, refresh, starting, worker_alive
from core.spec.run import RunSpec

WORKER: tuple[str, ...] = (sys.executable, "-m", "core.stages.worker")
ROOT = Path(__file__).resolve().parents[2]
#: So many runs may wait in a folder, unless PRUNEVIZ_QUEUE says otherwise.
MOST_QUEUED = 50
NOT_MADE_HERE = (
    "It was not created here, as it is: somebody copied its folder here, or changed its spec. "
    "Look into spec.json, then resume it."
)
#: Workers that this process started, so that it can collect them when they end.
_children: list[subprocess.Popen[bytes]] = []


def run_id(spec: RunSpec, now: float | None = None) -> str:
    """A readable name, e.g. `20261122-231455-taylor_first-20`."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    subject: str = f"export-{spec.export.to}" if spec.goal == "export" else spec.goal
    if spec.goal == "prune":
        share = f"-{spec.prune.target}" if spec.prune.share is None else f"-{spec.prune.share * 100:g}"
        share = "" if spec.prune.units else share
        subject = f"{spec.prune.method}{share}"
    return f"{stamp}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', subject)}"


def create(runs_dir: Path, spec: RunSpec, *, mine: bool = False) -> Path:
    """Make a run and return its directory: queued, or for this very process to execute (`mine`).

    Raises:
        StorageError: the folder cannot be written.
        LaunchError: this is one of several processes that would all do the same, or the queue is full.
    """
    require_alone()
    runs_dir = runs_dir.absolute()
    if not mine:
        _room_in(runs_dir)
    status = Status(created=time.time(), executor=spec.cluster.executor)
    status = starting(status) if mine else status
    beside = runs_dir / f".new-{uuid.uuid4().hex}"
    try:
        write_text(beside / SPEC, absolute(spec).to_json())
        write_status(beside, status)
        sign(beside)
        return _into_place(beside, runs_dir / run_id(spec))
    except StorageError:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def require_consent(run_dir: Path, spec: RunSpec) -> None:
    """Raises InputError where a run would run a model's own code and was not created here."""
    if spec.model.trust_remote_code and not made_here(run_dir):
        raise InputError(
            f"{run_dir.name} asks to run code that comes with {spec.model.source}, and was not created here. "
            "Read that code; if you trust it, start a new run with --trust-remote-code."
        )


def rewrite(run_dir: Path, spec: RunSpec) -> None:
    """Write down what a run was settled to; it was created here as much as before. Raises StorageError."""
    ours = made_here(run_dir)
    write_text(run_dir / SPEC, spec.to_json())
    if ours:
        sign(run_dir)


def _room_in(runs_dir: Path) -> None:
    """Raises LaunchError if the queue is full, InputError if its length is none."""
    given = os.environ.get("PRUNEVIZ_QUEUE", str(MOST_QUEUED))
    if not given.isdecimal():
        raise InputError(f"PRUNEVIZ_QUEUE must be a number of runs, such as {MOST_QUEUED}, got {given!r}.")
    waiting = sum(read(path).state == "queued" for path in list_runs(runs_dir))
    if waiting >= int(given):
        raise LaunchError(
            f"{waiting} runs wait in {runs_dir} already, and no more than {given} may: stop some that wait, "
            "or let them be done first. PRUNEVIZ_QUEUE sets another number."
        )


def _into_place(beside: Path, wanted: Path) -> Path:
    for attempt in range(1, 1000):
        run_dir = wanted if attempt == 1 else wanted.with_name(f"{wanted.name}-{attempt}")
        try:
            return beside.rename(run_dir)  # fails on a directory that holds something
        except OSError as error:
            if not run_dir.exists():
                raise storage_error(run_dir, error) from error
    raise StorageError(f"{wanted} and 998 more of that name exist; wait a second and try again.")


def start_next(runs_dir: Path) -> Path | None:
    """Start the oldest queued run, unless a worker is busy, and all for a cluster: it has its own queue.

    Returns the first that was started.

    Raises:
        StorageError: the folder cannot be written.
        LaunchError: no process could be started.
    """
    _collect()
    runs = list_runs(runs_dir)
    if not runs:
        return None
    for path in runs:
        refresh(path)  # a worker that died must not hold up the queue
    with locked(runs_dir):
        statuses = [(path, read(path)) for path in list_runs(runs_dir)]
        queued = [(status.created, path, status) for path, status in statuses if status.state == "queued"]
        busy = any(_busy(status) and status.executor == "local" for _, status in statuses)
        started = []
        for _, path, status in sorted(queued, key=lambda each: each[:2]):
            here = status.executor == "local"
            if not (here and busy) and _begun(path):
                busy |= here
                started.append(path)
        return next(iter(started), None)


def _begun(run_dir: Path) -> bool:
    """Start a run that waits; one that cannot be started says why and waits no more."""
    if not made_here(run_dir):
        _set_aside(run_dir, "stopped", NOT_MADE_HERE)
        return False
    try:
        with open(run_dir / LOG, "ab", opener=regular) as log:
            _spawn(run_dir, log)
    except OSError as error:
        _set_aside(run_dir, "failed", str(storage_error(run_dir / LOG, error)))
        return False
    return True


def _set_aside(run_dir: Path, state: str, message: str) -> None:
    """A run that waits no more, and why. The caller holds the lock."""
    error = {"type": "LaunchError", "message": message, "fix": ""} if state == "failed" else None
    status = replace(read_status(run_dir), state=state, message=message, ended=time.time(), error=error)
    write_status(run_dir, status)


def _busy(status: Status) -> bool:
    """Whether the run has a worker; a stuck one counts, since it may wake up."""
    at_work = status.state in ACTIVE and not lost(status)
    return at_work or (status.state in (*ACTIVE, "crashed") and worker_alive(status))


def _spawn(run_dir: Path, log: IO[bytes]) -> None:
    """Start a detached worker and record its process; the caller holds the lock, so the worker waits."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    status = replace(
        read_status(run_dir), state="starting", message="Starting", started=time.time(), host=host()
    )
    write_status(run_dir, status)
    try:
        worker = subprocess.Popen(
            [*WORKER, str(run_dir)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,  # `-m` looks there first: another folder may hold another `core`
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    except OSError as error:
        write_status(run_dir, replace(status, state="queued", started=None))
        raise LaunchError(
            f"The worker could not be started: {error}; free some memory and try again."
        ) from error
    _children.append(worker)
    # Collected as soon as it has ended, whether or not anybody looks: it never stays a zombie.
    threading.Thread(target=worker.wait, name=f"waits for {worker.pid}", daemon=True).start()
    write_status(run_dir, replace(status, pid=worker.pid, pid_started=started_at(worker.pid)))


def _collect() -> None:
    """Forget the workers that this process started and that have ended."""
    _children[:] = [child for child in _children if child.poll() is None]


def start(runs_dir: Path, spec: RunSpec) -> Path:
    """Create a run and start it if no worker is busy, else leave it queued. Returns its directory."""
    run_dir = create(runs_dir, spec)
    start_next(runs_dir)
    return run_dir


def stop(run_dir: Path) -> Status:
    """Ask a run to stop: a queued one at once, a running one at its next step. Raises StorageError."""
    refresh(run_dir)
    with locked(run_dir.parent):
        status = read(run_dir)
        if status.state == "queued":
            status = replace(status, state="stopped", message="Stopped before it started", ended=time.time())
            write_status(run_dir, status)
        elif _busy(status):
            write_text(run_dir / STOP, "")
    return refresh(run_dir)


def kill(run_dir: Path) -> Status:
    """End a worker that does not stop on request, suspended ones too, and start the next in the queue.

    Its files stay.

    Raises:
        StorageError: the folder cannot be written.
        LaunchError: the process is none of ours, or on another machine.
    """
    status = refresh(run_dir)
    if status.pid is None or status.state not in (*ACTIVE, "crashed") or not worker_alive(status):
        return status
    if status.host not in ("", host()):
        raise LaunchError(f"The worker runs on {status.host}; end it there.")
    if not works_on(status.pid, WORKER, run_dir):
        raise LaunchError(
            f"Process {status.pid} is no worker of the queue on this run: it is left alone. "
            "If you started the run in a terminal, end it there with Ctrl-C."
        )
    kill_worker(status.pid, WORKER, run_dir)
    cancel_jobs(run_dir / JOBS)
    with locked(run_dir.parent):
        status = read(run_dir)
        if status.state not in ENDED or status.state == "crashed":
            ended = {"message": "Ended by request", "ended": time.time(), "eta_s": None, "error": None}
            status = replace(status, state="stopped", **ended)  # type: ignore[arg-type]
            write_status(run_dir, status)
    start_next(run_dir.parent)  # the process that waited for this worker has ended with it
    return status


def resume(run_dir: Path, *, mine: bool = False) -> Status:
    """Queue an ended run again, in the same directory, and start it if no worker is busy.

    Finished, undamaged stages are not repeated. Returns the new status. With `mine` it waits for this very
    process to execute it.

    Raises:
        InputError: the run is queued, at work or finished, its spec cannot be read, or it would run code of
            the model's that nobody here has allowed.
        StorageError: the folder cannot be written.
        LaunchError: this is one of several processes that would all do the same, or the queue is full.
    """
    require_alone()
    refresh(run_dir)
    try:
        require_consent(run_dir, read_spec(run_dir))
    except ArtifactError as error:
        raise InputError(f"{run_dir.name} cannot be resumed: {error} Start a new run instead.") from error
    if not mine:
        _room_in(run_dir.parent)
    with locked(run_dir.parent):
        status = read(run_dir)
        if status.state in ("finished", "queued") or _busy(status):
            fix = "clone it to run it again" if status.state == "finished" else "stop it first, or wait"
            raise InputError(f"{run_dir.name} is {status.state}; only an ended run can be resumed: {fix}.")
        remove(run_dir / STOP)
        sign(run_dir)  # whoever resumes a run that was copied here asks for it here
        now = time.time()
        status = Status(
            created=status.created or now,
            before_s=status.worked_s(now) or 0.0,
            message="Waiting to go on",
            executor=read_spec(run_dir).cluster.executor,
        )
        write_status(run_dir, starting(status) if mine else status)
    if not mine:
        start_next(run_dir.parent)
    return refresh(run_dir)
