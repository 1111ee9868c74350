"""Processes that train together, each on a device of its own and on its share of every batch.

All hold the same trained tensors, average their gradients, and so take the same step. That is little to
exchange, so it goes over gloo, on CUDA too: gloo says at once that a process has died, where NCCL would wait.
Only weights that are sharded (`shards`) go over NCCL between cards.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import psutil
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import patch_environment
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]

from core.devices.picked import multiplied_in
from core.errors import LaunchError, SpecError
from core.runs.company import Company

#: How long the others wait for one that measures, saves or computes.
PATIENCE = timedelta(minutes=30)
_HOST = "127.0.0.1"
LOST = "The processes of this training lost touch with each other; see the log."


class LostTouchError(LaunchError):
    """Another process of a training is gone."""


@dataclass(frozen=True)
class Team:
    """The processes of one training, as one of them sees them; one alone is a team, too.

    Attributes:
        why_lost: says why another one is gone, when one is.
    """

    accelerator: Accelerator
    why_lost: Callable[[], str] = lambda: LOST

    @property
    def size(self) -> int:
        """How many there are."""
        return int(self.accelerator.num_processes)

    @property
    def leads(self) -> bool:
        """Whether this is the first, which measures, decides and writes."""
        return bool(self.accelerator.is_main_process)

    def share(self, rows: list[int]) -> list[int]:
        """This process's part of a batch."""
        with self.accelerator.split_between_processes(rows) as mine:
            return list(mine)

    def wait(self) -> None:
        """Go on when all have come here. Raises LostTouchError if one is gone."""
        self.average([], [torch.zeros(1)])

    def agree(self, over: bool) -> bool:
        """Whether the first says that it is over. Raises LostTouchError if one is gone."""
        return bool(self.average([float(over and self.leads)], [])[0])

    def average(self, numbers: Sequence[float], tensors: Iterable[Tensor]) -> list[float]:
        """The means of numbers over all processes; the tensors, on any device, become theirs in place.

        Raises:
            LostTouchError: another process is gone; says which, if this one is the first.
        """
        if self.size == 1:
            return list(numbers)
        shared = list(tensors)
        flat = torch.cat([torch.tensor(numbers), *(one.detach().flatten().float().cpu() for one in shared)])
        with self.in_touch():
            flat = self.accelerator.reduce(flat, "mean")
        means, *parts = flat.split([len(numbers), *(one.numel() for one in shared)])
        for one, part in zip(shared, parts, strict=True):
            one.copy_(part.view_as(one))
        return [float(one) for one in means]

    def spread(self, tensor: Tensor) -> Tensor:
        """The first one's tensor, bit for bit, on the CPU; the others give one of its shape and type.

        Raises:
            LostTouchError: another process is gone.
        """
        held = tensor.detach().cpu().contiguous()
        with self.in_touch():
            dist.broadcast(held.view(-1).view(torch.uint8), 0)  # bytes: gloo does not know every type
        return held

    @contextmanager
    def in_touch(self) -> Iterator[None]:
        """Raise LostTouchError where something is exchanged, and that fails."""
        try:
            yield
        except RuntimeError as error:
            raise LostTouchError(self.why_lost()) from error


def accelerator(device: torch.device, precision: str) -> Accelerator:
    """What multiplies matrices in a precision while training on this device.

    Args:
        precision: as `multiplied_in` takes it.
    """
    # A training before this one may have had another precision, or company.
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=device.type == "cpu", mixed_precision=multiplied_in(precision, device))


def devices(first: torch.device, count: int) -> list[torch.device]:
    """Where each of `count` processes of a machine trains: on GPUs in a row, or all on the CPU.

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


def _environment(mine: Company, device: torch.device) -> dict[str, str]:
    """What tells accelerate who this process is; processor cores are shared out."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    loopback = [
        name for name, those in psutil.net_if_addrs().items() if any(one.address == _HOST for one in those)
    ]
    return {
        **{name: mine.variables[name] for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")},
        "LOCAL_RANK": str(mine.local_rank if device.index is None else device.index),
        "LOCAL_WORLD_SIZE": str(mine.local_size),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // mine.local_size))),
        # accelerate refuses some GPUs without these; nothing here goes over NCCL.
        "NCCL_P2P_DISABLE": "1",
        "NCCL_IB_DISABLE": "1",
        **({"GLOO_SOCKET_IFNAME": loopback[0]} if loopback and mine.size == mine.local_size else {}),
    }


@contextmanager
def joined(
    mine: Company,
    store: Store,
    device: torch.device,
    precision: str,
    why_lost: Callable[[], str],
    sharded: bool = False,
) -> Iterator[Team]:
    """The team that this process joins, until the block ends; begins when all have joined.

    Args:
        store: where they meet, of this training alone.
        sharded: whether they exchange weights on their devices, too.

    Raises:
        LostTouchError: another process is gone.
    """
    environment, threads = _environment(mine, device), torch.get_num_threads()
    backend = "cpu:gloo,cuda:nccl" if sharded and device.type == "cuda" else "gloo"
    try:
        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
        with patch_environment(**environment):  # what this process starts later is alone again
            try:
                dist.init_process_group(
                    backend, store=store, rank=mine.rank, world_size=mine.size, timeout=PATIENCE
                )
            except RuntimeError as error:
                raise LostTouchError(why_lost()) from error
            team = Team(accelerator(device, precision), why_lost)
        yield team
    finally:
        torch.set_num_threads(threads)
        if dist.is_initialized():
            dist.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)
