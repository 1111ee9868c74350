"""A model under a plan as it will be used: masks, and with them the biases that a refit would add."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from core.graph.records import Graph
from core.recover.reconstruct import Means
from core.recover.walk import readers_of
from core.surgery.masks import Removed, masked


@contextmanager
def compensated(
    model: PreTrainedModel, graph: Graph, removed: Removed, means: Means | None
) -> Iterator[None]:
    """Silence units; with `means`, what reads them gets their mean instead, as the refit `bias` does."""
    with ExitStack() as stack:
        for layer in _layers(graph, removed) if means is not None else ():
            for reader in readers_of(graph, model, removed, layer):
                assert means is not None
                mean = means[reader.weight, reader.dim][reader.gone].to(model.device)
                shift = (mean.double() @ reader.matrix()[reader.gone].double()).to(reader.module.weight.dtype)
                stack.callback(reader.module.register_forward_hook(_adding(shift)).remove)
        stack.enter_context(masked(model, graph, removed))
        yield


def _layers(graph: Graph, removed: Mapping[str, Any]) -> list[int]:
    return sorted({layer for group in removed if (layer := graph.group(group).layer) is not None})


def _adding(shift: Tensor) -> Any:
    def add(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return out + shift

    return add
