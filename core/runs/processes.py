"""Processes by number and start time, which together identify one for good."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil

from core.errors import LaunchError
from core.files import write_text
from core.runs.artifacts import STOP

#: The variables in which launchers give the number of processes: torchrun's and accelerate's, then MPI's.
_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
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
    try:
        process = psutil.Process(pid)
        if started is not None and abs(process.create_time() - started) > TOLERANCE_S:
            return False
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False


def require_alone() -> None:
    """Raise LaunchError if a launcher started several such processes: each would do the whole run."""
    for name in _SIZES:
        size = os.environ.get(name, "")
        if size.isdecimal() and int(size) > 1:
            raise LaunchError(
                f"This is one of {size} processes ({name}={size}), but a run is started once. Leave out "
                "torchrun, accelerate launch or mpirun; to train on several GPUs with --method nuteprune, "
                f"write --set processes={size}; to use them otherwise, start one run for each, with "
                "--device cuda:1 and so on."
            )


def kill_process(pid: int, wait_s: float = 10.0) -> None:
    """End a process at once and wait until it is gone."""
    try:
        process = psutil.Process(pid)
        process.kill()
        process.wait(wait_s)
    except psutil.Error:
        return


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
