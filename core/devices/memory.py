"""What a device has left for this process; of the machine itself without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take on a device."""
    if device.type == "cuda":
        import torch

        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + idle
    return free_here()


def free_here() -> int:
    """Bytes of the machine's memory that this process, or another of the same job, may still take."""
    return min([int(psutil.virtual_memory().available), *_allowances(Path("/sys/fs/cgroup"))])


def _allowances(root: Path, membership: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What the control groups of this process leave it: on Linux, a job may have less than the machine."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    inside = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    folders = [root / inside, *(root / inside).parents]
    return [left for folder in folders if (left := _allowance(folder)) is not None]


def _allowance(folder: Path) -> int | None:
    """What is left below the limit of one control group; files that are only cached do not count as used."""
    try:
        limit, used, facts = (
            (folder / f"memory.{name}").read_text(encoding="utf-8") for name in ("max", "current", "stat")
        )
    except OSError:
        return None
    cached = dict(line.split() for line in facts.splitlines()).get("inactive_file", 0)
    return None if limit.strip() == "max" else max(0, int(limit) - int(used) + int(cached))
