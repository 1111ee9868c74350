"""The run's own process: it starts those that train along, watches them, and ends them when it ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from core.errors import LaunchError
from core.recover import team as teams
from core.recover.team import Follower, Team
from core.runs.artifacts import LOG
from core.runs.launch import ROOT

_FOLLOWER = (sys.executable, "-m", "core.stages.follower")


@contextmanager
def team(
    run_dir: Path, device: torch.device, processes: int, precision: str, check_stop: Callable[[], None]
) -> Iterator[Team]:
    """Whoever trains, led by this process, until the block ends.

    Args:
        device: where this process trains; processes: how many do, this one among them.
        precision: see `core.recover.team.accelerator`.
        check_stop: called while the others load their models; what it raises ends them.

    Raises:
        SpecError: there are fewer devices than processes.
        LaunchError: a process could not be started, or is gone.
    """
    if processes == 1:
        yield Team(teams.accelerator(device, precision))
        return
    where, store = teams.devices(device, processes), _store(processes)
    followers: list[Follower] = []
    try:
        for rank in range(1, processes):
            followers.append(Follower(rank, where[rank], _start(run_dir, rank, where, store.port)))
        _until_loaded(followers, store, check_stop)
        with teams.joined(store, 0, where, precision) as ours:
            yield Team(ours, followers, store)
    finally:
        for one in followers:
            one.process.kill()  # it keeps nothing of its own
        for one in followers:
            one.process.wait()


def _store(size: int) -> TCPStore:
    """Where processes meet, on a free port that only this machine reaches."""
    listening = socket.create_server((teams.HOST, 0))
    port = listening.getsockname()[1]
    return TCPStore(
        teams.HOST, port, size, True, teams.PATIENCE,
        wait_for_workers=False, master_listen_fd=listening.detach(),
    )  # fmt: skip


def _start(run_dir: Path, rank: int, where: Sequence[torch.device], port: int) -> subprocess.Popen[bytes]:
    try:
        with (run_dir / LOG).open("ab") as log:
            return subprocess.Popen(
                [*_FOLLOWER, str(run_dir.absolute()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,  # `-m` looks there first
                env={**os.environ, **teams.environment(rank, where, port)},
                start_new_session=True,  # Ctrl-C asks this process to stop; it says when the others do
            )
    except OSError as error:
        raise LaunchError(
            f"Process {rank + 1} of {len(where)} could not be started: {error}; free some memory, or write "
            "fewer processes."
        ) from error


def _until_loaded(followers: Sequence[Follower], store: Store, check_stop: Callable[[], None]) -> None:
    while not store.check([teams.ready(one.rank) for one in followers]):
        check_stop()
        if why := teams.why_lost(followers, store):
            raise LaunchError(why)
        time.sleep(0.05)
