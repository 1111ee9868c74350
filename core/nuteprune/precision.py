"""In which precision matrices are multiplied while training; accelerate does it."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState


def accelerator(device: torch.device, precision: str) -> Accelerator:
    """An accelerator for this device.

    Args:
        precision: `no`, `bf16`, or `auto`: bfloat16 where the hardware is made for it.
    """
    # A training before this one may have had another precision, or company.
    AcceleratorState._reset_state(reset_partial_state=True)
    chosen = ("bf16" if _fast(device) else "no") if precision == "auto" else precision
    return Accelerator(cpu=device.type == "cpu", mixed_precision=chosen)


def _fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())
