"""What a plan loses against the dense model, with all that lies below the changed layer reused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.evaluate.passes import Pass, logits_from, skipping_is_exact, whole_pass
from core.evaluate.perplexity import batches, next_token_logits
from core.graph.records import Graph
from core.recover.reconstruct import Means
from core.recover.walk import of_layer
from core.search.compensated import compensated
from core.surgery.masks import Removed

#: Positions whose probabilities are compared at a time.
_CHUNK = 32
_BATCH = 8


class Losses:
    """Measures plans that differ from one plan in a single group.

    A loss is the mean divergence KL(dense || pruned) of the next token's distribution, in nats per token. Of
    small differences between plans it says more on few tokens than the likelihood of the text's own tokens.

    Args:
        windows: token ids, (windows, length).
        means: of `core.recover.reconstruct.input_means`, to count what biases repair; None to count masks.
    """

    def __init__(self, model: PreTrainedModel, graph: Graph, windows: Tensor, means: Means | None) -> None:
        self.model, self.graph, self.means = model, graph, means
        self._modules = [model.get_submodule(name) for name in graph.layer_modules]
        self._batches = batches(model, windows, _BATCH)
        self._dense = [_probabilities(next_token_logits(model, ids)) for ids in self._batches]
        self._base: dict[str, tuple[int, ...]] = {}
        self._on: dict[int, AbstractContextManager[None]] = {}
        self._passes: list[Pass] = []
        self._skips = False

    @contextmanager
    def around(self, removed: Removed) -> Iterator[float]:
        """Stand at a plan, of which the block gets the loss: `without` then differs from it in one group."""
        self._base = dict(removed)
        try:
            for layer in range(len(self._modules)):
                self._put_on(layer, self._base)
            self._passes = [whole_pass(self.model, self._modules, ids) for ids in self._batches]
            self._skips = skipping_is_exact(self.model, self._modules, self._passes[0])
            yield self._loss(len(self._modules) - 1 if self._skips else 0)
        finally:
            for layer in [*self._on]:
                self._take_off(layer)
            self._passes = []

    def without(self, group: str, units: tuple[int, ...]) -> float:
        """The loss when these units of a group are gone, in the place of those that the plan removes."""
        layer = self.graph.group(group).layer
        assert layer is not None, "only groups of single layers are searched"
        try:
            self._put_on(layer, {**self._base, group: units})
            return self._loss(layer if self._skips else 0)
        finally:
            self._put_on(layer, self._base)

    def _put_on(self, layer: int, removed: Removed) -> None:
        """Have one layer pruned so, whatever was on it before."""
        self._take_off(layer)
        inside = {group: units for group, units in of_layer(self.graph, removed, layer).items() if units}
        if inside:
            self._on[layer] = compensated(self.model, self.graph, inside, self.means)
            self._on[layer].__enter__()

    def _take_off(self, layer: int) -> None:
        if layer in self._on:
            self._on.pop(layer).__exit__(None, None, None)

    def _loss(self, layer: int) -> float:
        total = tokens = 0.0
        for earlier, (dense, negentropy) in zip(self._passes, self._dense, strict=True):
            now = logits_from(self.model, self._modules, layer, earlier)
            total += negentropy + _cross_entropy(dense, now)
            tokens += earlier.ids.numel()
        return total / tokens


@torch.no_grad()
def _probabilities(logits: Tensor) -> tuple[Tensor, float]:
    """Probabilities, (batch, window, vocabulary), and the sum over all positions of sum_i p_i log p_i."""
    probabilities = torch.softmax(logits.float(), dim=-1)
    return probabilities, -_cross_entropy(probabilities, logits)


@torch.no_grad()
def _cross_entropy(dense: Tensor, logits: Tensor) -> float:
    """The sum over all positions of -sum_i p_i log q_i, in nats; both (batch, window, vocabulary)."""
    total = 0.0
    for p, z in zip(dense.flatten(0, 1).split(_CHUNK), logits.flatten(0, 1).split(_CHUNK), strict=True):
        z = z.float()
        spread = torch.logsumexp(z, dim=-1) - (p * z).sum(dim=-1)
        total += float(spread.double().sum())
    return total
