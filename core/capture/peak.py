"""The most memory that a run has held: on the device if that has memory of its own, else of its process."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_GIB = 2**30
#: Linux keeps the largest size of a process, and counts anew when it is told so; others only tell.
_OURS, _ANEW = Path("/proc/self/status"), Path("/proc/self/clear_refs")
#: What the system counts the largest size of a process in, in bytes: macOS differs.
_UNIT = 1 if sys.platform == "darwin" else 1024


def peak_gib(device: torch.device) -> float:
    """The most that was held since `forget_peak`, in GiB; on CUDA of tensors, elsewhere by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _GIB
    with suppress(OSError, StopIteration, ValueError):  # where there is no such file, or it says nothing
        lines = _OURS.read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 / _GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT / _GIB


def forget_peak(device: torch.device) -> None:
    """Count anew from here, which a process can on Linux only."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            _ANEW.write_text("5", encoding="utf-8")


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
