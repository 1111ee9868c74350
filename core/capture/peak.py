"""The most memory that a run has held: on the device if that has memory of its own, else of its process."""

from __future__ import annotations

import resource
import sys

import torch

_GIB = 2**30
#: What the system counts the largest size of a process in, in bytes: macOS differs.
_UNIT = 1 if sys.platform == "darwin" else 1024


def peak_gib(device: torch.device) -> float:
    """The most that was held so far, in GiB; on CUDA since `forget_peak`, of tensors."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT / _GIB


def forget_peak(device: torch.device) -> None:
    """Count anew from here; a process cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory_words() -> str:
    """What every CUDA device has free, of how much, and what this process holds of it; empty without CUDA."""
    parts = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        ours = torch.cuda.memory_reserved(index)
        others = max(0, total - free - ours)
        parts.append(
            f"cuda:{index} has {total / _GIB:.1f} GiB: {ours / _GIB:.1f} held by this run, "
            f"{others / _GIB:.1f} by other processes, {free / _GIB:.1f} free"
        )
    return "; ".join(parts)
