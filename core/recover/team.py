"""Processes that train together, each on a device of its own and on its share of every batch.

The run's own process leads (`leader`); the others follow it, step by step (`follower`). All hold the same
trained tensors, average their gradients, and so take the same step. That is little to exchange, so it
goes over gloo, on CUDA too: gloo says at once that a process has died, where NCCL would wait.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from subprocess import Popen

import psutil
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import patch_environment
from torch import Tensor
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from core.errors import LaunchError, SpecError
from core.runs.processes import describe_exit

HOST = "127.0.0.1"
#: How long the others wait for one that measures, saves or computes.
PATIENCE = timedelta(minutes=30)
#: A process whose connection broke is gone after this long at most.
_GONE_S = 10.0


@dataclass(frozen=True)
class Follower:
    """A process that was started to train along: its number from 1, and where it trains."""

    rank: int
    device: torch.device
    process: Popen[bytes]


@dataclass(frozen=True)
class Team:
    """The processes of one training, as one of them sees them; one alone is a team, too.

    Attributes:
        followers: those that this process leads, and the store where they leave a last word.
    """

    accelerator: Accelerator
    followers: Sequence[Follower] = ()
    store: Store | None = None

    def share(self, rows: list[int]) -> list[int]:
        """This process's part of a batch."""
        with self.accelerator.split_between_processes(rows) as mine:
            return list(mine)

    def wait(self) -> None:
        """Go on when all have come here. Raises LaunchError if one is gone."""
        self.average([], [torch.zeros(1)])

    def average(self, numbers: Sequence[float], tensors: Iterable[Tensor]) -> list[float]:
        """The means of numbers over all processes; the tensors, on any device, become theirs in place.

        Raises:
            LaunchError: another process is gone; names it if this one leads.
        """
        if self.accelerator.num_processes == 1:
            return list(numbers)
        shared = list(tensors)
        flat = torch.cat([torch.tensor(numbers), *(one.detach().flatten().float().cpu() for one in shared)])
        try:
            flat = self.accelerator.reduce(flat, "mean")
        except RuntimeError as error:
            raise LaunchError(why_lost(self.followers, self.store, _GONE_S)) from error
        means, *parts = flat.split([len(numbers), *(one.numel() for one in shared)])
        for one, part in zip(shared, parts, strict=True):
            one.copy_(part.view_as(one))
        return [float(one) for one in means]


def accelerator(device: torch.device, precision: str) -> Accelerator:
    """What multiplies matrices in a precision while training on this device.

    Args:
        precision: as `multiplied_in` takes it.
    """
    # A training before this one may have had another precision, or company.
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=device.type == "cpu", mixed_precision=multiplied_in(precision, device))


def multiplied_in(precision: str, device: torch.device) -> str:
    """What matrices are multiplied in on this device: `no` lower precision, or `bf16`.

    Args:
        precision: either of them, or `auto`: bfloat16 where the hardware has instructions for it.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    # Without such instructions a CPU takes longer for bfloat16 than for float32.
    able = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bf16" if device.type == "cpu" and able else "no"


def why_lost(followers: Sequence[Follower], store: Store | None, wait_s: float = 0.0) -> str:
    """Which follower is gone, and why; empty if all are there and nobody waits for one to go."""
    deadline = time.monotonic() + wait_s
    while True:
        ended = [one for one in followers if one.process.poll() is not None]
        # Those that only lost touch with the first that died say nothing, and are not to blame.
        for one in ended:
            key = last_word(one.rank)
            who = f"Process {one.rank + 1} of {len(followers) + 1}, which trains on {one.device},"
            if store is not None and store.check([key]):
                return f"{who} failed: {store.get(key).decode()}"
            if one.process.returncode < 0:
                return f"{who} {describe_exit(one.process.returncode)}."
        if time.monotonic() >= deadline:
            break
        time.sleep(0.05)
    if ended or wait_s:
        return "The processes of this training lost touch with each other; see the log."
    return ""


def last_word(rank: int) -> str:
    """Where a follower leaves why it failed."""
    return f"failed/{rank}"


def ready(rank: int) -> str:
    """Where a follower says that it has loaded the model."""
    return f"ready/{rank}"


def devices(first: torch.device, count: int) -> list[torch.device]:
    """Where each of `count` processes trains, the run's own first: on GPUs in a row, or all on the CPU.

    Raises:
        SpecError: there are fewer devices.
    """
    if count == 1 or first.type == "cpu":
        return [first] * count
    start = first.index or 0
    most = torch.cuda.device_count() - start if first.type == "cuda" else 1
    if count > most:
        raise SpecError(
            f"processes must be at most {most} here, the number of {first.type} devices"
            f"{f' from number {start} on' if start else ''}, got {count}; each takes one of its own."
        )
    return [torch.device(first.type, start + rank) for rank in range(count)]


def environment(rank: int, where: Sequence[torch.device], port: int) -> dict[str, str]:
    """What tells a process, and accelerate in it, who it is; processor cores are shared out."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    loopback = [
        name for name, those in psutil.net_if_addrs().items() if any(one.address == HOST for one in those)
    ]
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(len(where)),
        "LOCAL_RANK": str(where[rank].index if where[rank].index is not None else rank),
        "LOCAL_WORLD_SIZE": str(len(where)),
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // len(where)))),
        # accelerate refuses some GPUs without these; nothing here goes over NCCL.
        "NCCL_P2P_DISABLE": "1",
        "NCCL_IB_DISABLE": "1",
        **({"GLOO_SOCKET_IFNAME": loopback[0]} if loopback else {}),
    }


@contextmanager
def joined(
    store: TCPStore, rank: int, where: Sequence[torch.device], precision: str
) -> Iterator[Accelerator]:
    """An accelerator that knows the others, until the block ends; returns when all have joined."""
    mine, threads = environment(rank, where, store.port), torch.get_num_threads()
    try:
        torch.set_num_threads(int(mine["OMP_NUM_THREADS"]))
        with patch_environment(**mine):  # a run that this process starts later is alone again
            dist.init_process_group("gloo", store=store, rank=rank, world_size=len(where), timeout=PATIENCE)
            ours = accelerator(where[rank], precision)
        yield ours
    finally:
        torch.set_num_threads(threads)
        if dist.is_initialized():
            dist.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)
