"""What LoRA's gradients say of every unit: the criterion of LoRAPrune, a baseline of NutePrune's tables.

Source: LoRAPrune (arXiv:2305.18403), the LoRA-guided criterion of its Section 3, worked out again here.
Without one weight of the merged matrix W' = W + s B A, where s = alpha / rank, the loss changes by
dL/dW' * W' to first order, and the square of that is the weight's importance. Keeping dL/dW' is what LoRA is
there to avoid; but what a plain step of length 1 down LoRA's own gradients takes from the product points the
same way:

    B A - (B - dB) (A - dA) = dB A + B dA - dB dA,    dA = dL/dA = s B^T dL/dW',    dB = dL/dB = s dL/dW' A^T

so it stands for dL/dW', up to a factor that is the same everywhere. A unit's importance is the sum over its
slices, and a running mean over the steps (`masking`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core.capture.slices import Slice, slices
from core.errors import NotPrunableError
from core.graph.records import Graph, Group
from core.nuteprune.gates import Gates
from core.nuteprune.twin import STUDENT
from core.recover.lora import lora_layers
from core.recover.shards import whole_of


class LoraGradient:
    """Importance of the units of gated groups, from matrices that have LoRA; other slices are passed over.

    A key or value that query heads share counts for each of them by an equal share, as for every criterion.

    Args:
        model: with peft's layers in it.

    Raises:
        NotPrunableError: no slice of a group has LoRA.
    """

    def __init__(self, model: nn.Module, graph: Graph, groups: Sequence[Group], gates: Gates) -> None:
        self._gates = gates
        self._layers = dict(_by_weight(model))
        self._slices: dict[str, list[tuple[str, Slice]]] = {name: [] for name in self._layers}
        for group in groups:
            parts = [part for part in slices(graph, group) if part.member.parameter in self._layers]
            if not parts:
                raise NotPrunableError(
                    f"rule=lora_gradient cannot rank {group.id}: none of its matrices has LoRA. Write "
                    f"lora_targets=all, leave {group.kind} out with --kinds, or take another rule."
                )
            for part in parts:
                self._slices[part.member.parameter].append((group.id, part))

    @torch.no_grad()
    def importance(self) -> Tensor:
        """The sum over each unit's slices of (dL/dW' * W')^2, by the gradients at hand, (units,)."""
        importance = torch.zeros_like(self._gates.log_alpha)
        into = self._gates.split(importance)
        for name, parts in self._slices.items():
            if not parts:
                continue
            squares = _merged_times_gradient(self._layers[name]).square()  # as the weight is stored
            sums = {dim: squares.sum(dim=1 - dim) for dim in {part.member.dim for _, part in parts}}
            for group, part in parts:
                into[group] += part.share.to(importance.device) * part.of(sums[part.member.dim]).sum(dim=1)
        return importance


def _by_weight(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The name of a weight before peft wrapped its module, and the wrapper."""
    wrappers = set(lora_layers(model))
    return ((f"{name}.weight", module) for name, module in model.named_modules() if module in wrappers)


def _merged_times_gradient(layer: Any) -> Tensor:
    """dL/dW' * W' as the docstring of this module derives it, float32, in the shape of the stored weight."""
    a, b = layer.lora_A[STUDENT].weight, layer.lora_B[STUDENT].weight  # (rank, in), (out, rank)
    weight = whole_of(layer.get_base_layer().weight)
    if a.grad is None or b.grad is None:
        return torch.zeros_like(weight, dtype=torch.float32)
    gradient = b.grad @ (a - a.grad) + b @ a.grad  # (out, in)
    update = layer.scaling[STUDENT] * (b @ a)
    if layer.fan_in_fan_out:
        gradient, update = gradient.T, update.T
    return gradient.float() * (weight.float() + update.float())
