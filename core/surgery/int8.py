"""Weights in 8 bits: a quarter of the memory of 32, to compare with pruning as LLM-Pruner's Table 13 does.

Weight-only, symmetric, one scale per output; products are taken in the precision of the activations, so
this saves memory, not time. torchao 0.18 does the same on this PyTorch, for 28 MB of mostly CUDA libraries.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from core.surgery.ragged import move_expansion

_LARGEST = 127


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
    output_layer = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.Linear, Conv1D)) and child is not output_layer:
                weight = child.weight.T if isinstance(child, Conv1D) else child.weight
                new = Int8Linear(weight, child.bias)
                move_expansion(child, new)
                setattr(parent, name, new)
    return model.eval()
