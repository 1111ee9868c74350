"""Processes by number and start time, which together identify one for good."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil

from core.files import write_text
from core.runs.artifacts import STOP

#: The clock behind a process's start time is coarse and differs a little between readings.
TOLERANCE_S = 2.0


def host() -> str:
    """The name of this machine."""
    return socket.gethostname()


def started_at(pid: int) -> float | None:
    """When the process started, in seconds since the epoch; None if it is gone."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def alive(pid: int, started: float | None) -> bool:
    """Whether this very process exists and has not ended; a zombie has ended."""
    if started is None:
        return False  # a number alone may be anybody's by now
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - started) > TOLERANCE_S:
            return False
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False


def works_on(pid: int, command: Sequence[str], folder: Path) -> bool:
    """Whether this process was started by `command`, a worker's, for this folder.

    Args:
        command: program and arguments; the folder follows them. Which Python it is does not matter.
    """
    try:
        *given, last = psutil.Process(pid).cmdline() or [""]
    except psutil.Error:
        return False
    return given[1:] == list(command[1:]) and os.path.realpath(last) == os.path.realpath(folder)


def kill_worker(pid: int, command: Sequence[str], folder: Path, wait_s: float = 10.0) -> None:
    """End a worker at once, with the process that waits for it and all it started; wait until they are gone.

    Whether it is suspended makes no difference.
    """
    with suppress(psutil.Error):
        worker = psutil.Process(pid)
        parent = worker.parent()
        top = parent if parent is not None and works_on(parent.pid, command, folder) else worker
        family = [top, *top.children(recursive=True)]
        for process in family:  # from the top, so that nobody starts the next run meanwhile
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(family, wait_s)


def cancel_jobs(folder: Path) -> None:
    """Take back what SLURM has of a run; tasks of Ray end with the process that waits for them.

    Args:
        folder: has one for each job, named by its number.
    """
    jobs = [job.name for job in folder.glob("*") if job.name.isdecimal()]
    if jobs and (scancel := shutil.which("scancel")):
        subprocess.run([scancel, *jobs], check=False, capture_output=True, timeout=60)


def describe_exit(code: int | None) -> str:
    """What an exit code means, for people; None if nobody saw it."""
    if code is None:
        return "is gone without a word: killed, possibly out of memory"
    if code >= 0:
        return f"ended with code {code} before it could say why; see the log"
    name = signal.Signals(-code).name
    if -code == signal.SIGKILL:
        return "was killed (SIGKILL), possibly out of memory"
    return f"was ended by {name}"


@contextmanager
def signals_wait(run_dir: Path) -> Iterator[None]:
    """A first SIGINT or SIGTERM asks the run to stop after its step; a second one interrupts as before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        for caught, handler in before.items():
            signal.signal(caught, handler)
        write_text(run_dir / STOP, "")

    try:
        for number in before:
            signal.signal(number, ask)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
