"""Which device and precision a word asks for: by what this machine has."""

from __future__ import annotations

import torch

from core.errors import ModelError


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, else MPS, else the CPU. Raises ModelError for a device that is not here."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"Unknown device '{name}'; write auto, cpu, cuda, cuda:0 or mps.") from error
    count = {"cpu": 1, "cuda": torch.cuda.device_count() if cuda else 0, "mps": int(mps)}.get(device.type, 0)
    if (device.index or 0) >= count:
        present = ["cpu"] + ["cuda"] * cuda + ["mps"] * mps
        raise ModelError(f"Device '{name}' is not here; this machine has {', '.join(present)}. Write auto.")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on CUDA and float32 elsewhere. Raises ModelError."""
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in names:
        raise ModelError(f"Unknown dtype '{name}'; write auto, {', '.join(names)}.")
    return names[name]


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
