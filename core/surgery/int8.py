"""Weights in 8 bits, to compare with pruning and to use beside it, as LLM-Pruner's Table 13 does.

Where bitsandbytes is installed and runs on the device this is that table's LLM.int8() (arXiv:2208.07339):
rows of weights and of activations in 8 bits, and the few input features beyond a threshold kept apart in 16.
Elsewhere it is weights only: symmetric, one scale per output, products in the precision of the activations,
so that it saves memory, not time, and keeps no outliers apart. Which it was is said wherever its numbers are.
"""

from __future__ import annotations

import copy
import importlib
import logging
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from core.results.quantities import LLM_INT8, WEIGHTS_ONLY
from core.surgery.ragged import move_expansion

_LARGEST = 127
#: Input features with an activation beyond it are outliers (LLM.int8(), Section 3.2).
_THRESHOLD = 6.0


class Int8Linear(nn.Module):
    """A linear layer whose weight is stored in 8 bits.

    Args:
        weight: (d_out, d_in); bias: (d_out,) or None.
    """

    scale: Tensor

    def __init__(self, weight: Tensor, bias: nn.Parameter | None) -> None:
        super().__init__()
        scale = weight.detach().abs().amax(dim=1).clamp_min(torch.finfo(weight.dtype).tiny) / _LARGEST
        rounded = (weight.detach() / scale[:, None]).round().clamp(-_LARGEST, _LARGEST)
        self.weight = nn.Parameter(rounded.to(torch.int8), requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) -> (..., d_out)."""
        out = F.linear(x, self.weight.to(x.dtype)) * self.scale
        return out if self.bias is None else out + self.bias


def quantized(model: Any) -> Any:
    """A copy with every matrix but the output layer in 8 bits; embeddings and norms stay as they are."""
    return quantize(copy.deepcopy(model))


def quantize(model: Any) -> Any:
    """Put the matrices of this very model in 8 bits, as `quantized` does, and return it."""
    output_layer, (kind, _) = model.get_output_embeddings(), int8_kind(model.device.type)
    make = _llm_int8 if kind == LLM_INT8 else Int8Linear
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.Linear, Conv1D)) and child is not output_layer:
                weight = child.weight.T if isinstance(child, Conv1D) else child.weight
                new = make(weight, child.bias)
                move_expansion(child, new)
                setattr(parent, name, new)
    return model.eval()


@lru_cache
def int8_kind(device: str) -> tuple[str, str]:
    """Which 8 bits a device of this type gets, and, if outliers are not kept apart, why not."""
    try:
        importlib.import_module("bitsandbytes")
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of every cast to 16 bits
    except ImportError:
        return WEIGHTS_ONLY, "bitsandbytes is not installed"
    except Exception as error:  # a build for another machine may fail in any way as it is imported
        return WEIGHTS_ONLY, f"bitsandbytes cannot be imported: {_line(error)}"
    try:
        right = _keeps_outliers(torch.device(device))
    except Exception as error:  # as may a kernel that this device does not have
        return WEIGHTS_ONLY, f"bitsandbytes does not run on {device}: {_line(error)}"
    return (LLM_INT8, "") if right else (WEIGHTS_ONLY, f"bitsandbytes computes something else on {device}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _llm_int8(weight: Tensor, bias: nn.Parameter | None) -> nn.Module:
    """bitsandbytes' layer of this weight, (d_out, d_in), on the weight's device."""
    bnb: Any = importlib.import_module("bitsandbytes")
    rows, columns = weight.shape
    layer = bnb.nn.Linear8bitLt(
        columns, rows, bias=bias is not None, has_fp16_weights=False, threshold=_THRESHOLD
    )
    whole = weight.detach().to("cpu", copy=True).contiguous()  # quantised on its way to a device
    layer.weight = bnb.nn.Int8Params(whole, requires_grad=False, has_fp16_weights=False)
    layer = layer.to(weight.device)
    layer.bias = bias
    layer.eval()  # in training it computes in full precision on some devices
    return layer


def _keeps_outliers(device: torch.device) -> bool:
    """Whether a small product with an outlier loses nothing but what 8 bits of the weights lose."""
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(rows, 64, generator=generator) for rows in (32, 8))
    x[:, 5] *= 60  # at one scale for the whole row the other features would be off by 1.4 %
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    with torch.no_grad():
        right = Int8Linear(weight, None)(x)
        got = _llm_int8(weight.to(device, dtype), None)(x.to(device, dtype)).float().cpu()
    return bool((got - right).norm() < 0.004 * right.norm())
