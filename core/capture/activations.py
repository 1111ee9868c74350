"""How large the features are that the matrices of each layer read, collected while the model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from core.graph.hooks import hooked
from core.graph.places import owner_of
from core.graph.records import Graph
from core.results.activations import Activation, Place

#: Place in a layer -> the kinds and the role of the matrices that read there.
_READ: dict[Place, tuple[tuple[str, ...], str]] = {
    "attention": (("query_head", "kv_group"), "layer1"),
    "attention_out": (("query_head", "kv_group"), "layer2"),
    "ffn": (("ffn_channel",), "layer1"),
    "ffn_out": (("ffn_channel",), "layer2"),
}


@dataclass
class _Sums:
    """Sums over the numbers of one place, which stay on the model's device."""

    size: Tensor
    squares: Tensor
    largest: Tensor
    numbers: int = 0

    def add(self, rows: Tensor) -> None:
        """Include more tokens, (tokens, features)."""
        self.size += torch.linalg.vector_norm(rows, 1, dim=-1).sum(dtype=self.size.dtype)
        self.squares += torch.linalg.vector_norm(rows, 2, dim=-1).square().sum(dtype=self.size.dtype)
        self.largest = torch.maximum(self.largest, torch.linalg.vector_norm(rows, torch.inf))
        self.numbers += rows.numel()


class FeatureSizes:
    """Sizes of features, place by place.

    Of matrices that read the same, one is watched; a stack of experts, or experts that see some tokens only,
    are left out.

    Source: greedy output approximation, arXiv:2407.19126, Appendix 6.2 and Figure 5, "mean activation
    value". Whether that is of the values or of their sizes it does not say; signed ones cancel, so here it is
    of absolute values.
    """

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self.device = next(model.parameters()).device
        self.tokens = self._positions = 0
        self._counted: Tensor | None = None  # None where all positions of a batch count
        self._watched = {
            (layer, place): module
            for layer in range(len(graph.layer_modules))
            for place in _READ
            if (module := _reading(model, graph, layer, place)) is not None
        }
        self._sums: dict[tuple[int, Place], _Sums] = {}

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Collect for the length of a `with` block."""
        hooks = (
            module.register_forward_pre_hook(self._adding(where)) for where, module in self._watched.items()
        )
        with hooked(hooks):
            yield

    def begin(self, counted: Tensor) -> None:
        """Before one batch: which of its positions count, (batch, length), bool."""
        count, self._positions = int(counted.sum()), counted.numel()
        self._counted = None if count == self._positions else counted.flatten()
        self.tokens += count

    def points(self) -> tuple[Activation, ...]:
        """What was seen, in the order of the layers."""
        return tuple(
            Activation(
                layer,
                place,
                float(sums.size) / sums.numbers,
                (float(sums.squares) / sums.numbers) ** 0.5,
                float(sums.largest),
            )
            for (layer, place), sums in ((where, self._sums.get(where)) for where in self._watched)
            if sums is not None and sums.numbers
        )

    def _adding(self, where: tuple[int, Place]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            rows = args[0].detach().reshape(-1, args[0].shape[-1])
            if len(rows) != self._positions:
                return
            if self._counted is not None:
                rows = rows[self._counted]
            if where not in self._sums:
                zero = torch.zeros((), device=self.device, dtype=torch.float32)
                wide = zero if self.device.type == "mps" else zero.double()
                self._sums[where] = _Sums(wide, wide.clone(), zero)
            self._sums[where].add(rows.float())

        return hook


def _reading(model: nn.Module, graph: Graph, layer: int, place: Place) -> nn.Module | None:
    """A linear layer that reads at this place, or None."""
    kinds, role = _READ[place]
    names = (
        member.parameter
        for group in graph.of_kind(*kinds)
        if group.layer == layer
        for member in group.members
        if member.role == role
    )
    owners = (owner_of(model, name)[0] for name in names)
    return next((owner for owner in owners if isinstance(owner, (nn.Linear, Conv1D))), None)
