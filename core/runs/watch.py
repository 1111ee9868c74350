"""Find runs, read their status, and notice workers that are gone or silent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from core.errors import ArtifactError, LaunchError, StorageError, storage_error
from core.files import regular, there
from core.registry import unknown
from core.runs.artifacts import LOG, SPEC, STOP, read_spec
from core.runs.processes import alive, describe_exit, host, started_at
from core.runs.status import STATUS, Status, read_status, write_status

ACTIVE = ("starting", "running", "stopping")
#: Shown, never written: the status or the spec cannot be read.
DAMAGED = "damaged"
#: A worker beats every 2 s; after this long without, it is stuck or lost.
SILENT_S = 60.0
#: On a cluster the disk that is shared may hold back what a node wrote, and who waits hears of lost nodes.
SILENT_THERE_S = 240.0
#: The lock is never needed for longer than it takes to start a process.
LOCK_S = 10.0


def list_runs(runs_dir: Path) -> list[Path]:
    """Every run directory, newest first, damaged ones included; an empty list if there is no folder yet.

    Symbolic links are none, nor is a folder whose name cannot stand in an address or in a terminal.
    """
    if not runs_dir.is_dir():
        return []
    runs = [
        path
        for path in runs_dir.absolute().iterdir()
        if not path.name.startswith(".")
        and path.name.isprintable()
        and there(path)
        and any(os.path.lexists(path / name) for name in (STATUS, SPEC, LOG))
    ]
    return sorted(runs, key=lambda path: path.name, reverse=True)


def find(runs_dir: Path, name: str) -> Path:
    """The run with this id, or the only run whose id begins with `name`. Raises UnknownNameError."""
    runs = {path.name: path for path in list_runs(runs_dir)}
    matches = [name] if name in runs else [full for full in runs if name and full.startswith(name)]
    if len(matches) == 1:
        return runs[matches[0]]
    raise unknown("run", name, matches or list(runs))


def worker_alive(status: Status) -> bool:
    """Whether the worker's process exists; by its start time too, for the system reuses pids."""
    if status.host and status.host != host():
        return abs(time.time() - status.heartbeat) < silence(status)
    return status.pid is not None and alive(status.pid, status.pid_started)


def starting(status: Status) -> Status:
    """The status of a run that waits for this very process to execute it."""
    pid = os.getpid()
    return replace(
        status, state="starting", started=time.time(), pid=pid, pid_started=started_at(pid), host=host()
    )


def refresh(run_dir: Path, exit_code: int | None = None, of: tuple[int, ...] = ()) -> Status:
    """The run's present status, `crashed` if its worker is gone or silent. Never raises.

    Args:
        exit_code: how the worker's process ended, if the caller waited for it.
        of: the pids of that worker; the run may have another worker by now.
    """
    status = read(run_dir)
    if status.state not in ACTIVE:
        return status
    if status.pid not in of and not lost(status):
        if not (run_dir / STOP).exists():
            return status
        return replace(status, state="stopping", message="Stopping after this step")
    try:
        with locked(run_dir.parent):
            # A worker writes its last status before it ends: only the status now on disk counts.
            status = read(run_dir)
            if status.state in ACTIVE and (status.pid in of or lost(status)):
                status = _crashed(run_dir, status, exit_code if status.pid in of else None)
                write_status(run_dir, status)
    except (StorageError, LaunchError):
        return _crashed(run_dir, status, exit_code)  # a folder we may only read still tells the truth
    return status


def read(run_dir: Path) -> Status:
    """The status on disk; `damaged`, saying what is wrong, if it or the spec cannot be read."""
    try:
        status = read_status(run_dir)
    except ArtifactError as error:
        return Status(state=DAMAGED, error=_damage(run_dir, error))
    if status.state in ACTIVE:
        return status
    try:
        read_spec(run_dir)
    except ArtifactError as error:
        return replace(status, state=DAMAGED, error=_damage(run_dir, error))
    return status


def _damage(run_dir: Path, error: ArtifactError) -> dict[str, str]:
    fix = f"Nothing was deleted: look into {run_dir}, then start the run again or remove the folder."
    return {"type": "ArtifactError", "message": str(error), "fix": fix}


def silence(status: Status) -> float:
    """After how many seconds without a beat a worker counts as stuck or lost."""
    return SILENT_S if status.executor == "local" else SILENT_THERE_S


def lost(status: Status) -> bool:
    """Whether a run that should be at work has no living worker."""
    # A time that is yet to come is no sign of life: whoever wrote it has another clock.
    latest = time.time() + silence(status)
    seen = [at for at in (status.heartbeat, status.started or 0.0, status.created) if at < latest]
    silent = time.time() - max(seen, default=0.0) > silence(status)
    if status.pid is None:
        return silent  # its launcher died between taking it from the queue and starting a worker
    return silent or not worker_alive(status)


def _crashed(run_dir: Path, status: Status, exit_code: int | None) -> Status:
    if exit_code is None and worker_alive(status):
        message = f"The worker (process {status.pid}) is there but silent; it may be stuck or suspended."
        fix = "It goes on by itself if it wakes up; otherwise press End now on the Runs tab, then Resume."
    else:
        message = f"The worker {describe_exit(exit_code)}."
        fix = "Resume the run; if memory was short, use fewer samples, a shorter length or bfloat16."
    error = {"type": "Crashed", "message": message, "fix": fix, "log": log_tail(run_dir)}
    ended = status.heartbeat or time.time()
    return replace(status, state="crashed", message=message, error=error, ended=ended, eta_s=None)


def log_tail(run_dir: Path, lines: int = 40) -> str:
    """The last lines of the worker's log; empty if there is none."""
    try:
        with open(run_dir / LOG, "rb", opener=regular) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 64 * 1024))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


@contextmanager
def locked(runs_dir: Path) -> Iterator[None]:
    """Hold the folder's lock for a moment.

    Raises:
        StorageError: the folder cannot be written.
        LaunchError: another process holds the lock and does not let go, e.g. because it is suspended.
    """
    lock = FileLock(runs_dir / ".lock", timeout=LOCK_S, poll_interval=0.01, fallback_to_soft=False)
    try:
        held = lock.acquire()
    except Timeout as error:
        raise LaunchError(
            f"{runs_dir} is held by another process for {LOCK_S:g} s; end or wake the one that hangs."
        ) from error
    except OSError as error:
        raise storage_error(runs_dir, error) from error
    with held:  # lets go; so does the end of this process, however it comes
        yield
