"""What is trained of a pruned model: low-rank updates of its matrices, or all of its weights."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from core.graph.records import Graph
from core.recover.lora import attach, merge
from core.spec.recover import WEIGHTS, RecoverSpec


class Trainable(Protocol):
    """A model of which something is trained.

    Attributes:
        model: gives logits; what requires a gradient of it is trained.
    """

    model: Any

    def finish(self) -> None:
        """Leave what was learned in the weights of the model from before, in evaluation mode."""


class LowRank:
    """A model whose matrices have low-rank updates. Raises InputError as `core.recover.lora.attach` does."""

    def __init__(self, model: Any, graph: Graph, recipe: RecoverSpec) -> None:
        self.model = attach(
            model, graph,
            rank=recipe.rank, alpha=recipe.alpha, targets=recipe.targets, dropout=recipe.dropout,
        )  # fmt: skip

    def finish(self) -> None:
        """Merge the updates."""
        merge(self.model)


class Whole:
    """A model all of whose weights are trained: in float32, whatever they are in before and after."""

    def __init__(self, model: Any) -> None:
        self._dtype, self.model = model.dtype, model.to(torch.float32)
        model.requires_grad_(True)

    def finish(self) -> None:
        """Round the weights to what they were in."""
        self.model.to(self._dtype).eval()


def trainable(model: Any, graph: Graph, recipe: RecoverSpec) -> Trainable:
    """The model as it is trained by this recipe, in place. Raises InputError."""
    return Whole(model) if recipe.targets == WEIGHTS else LowRank(model, graph, recipe)
