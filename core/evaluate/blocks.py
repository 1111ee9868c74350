"""How much worse a model is without one block: perplexity, with all that lies below it reused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from core.evaluate.passes import losses_from, skipping_is_exact, whole_pass
from core.evaluate.perplexity import batches, check_windows, summarise
from core.graph.records import Graph, Group
from core.surgery.masks import masked

_BATCH = 8


def perplexities_without(
    model: Any,
    graph: Graph,
    blocks: Sequence[Group],
    windows: Tensor,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Silence one block after another, and measure perplexity.

    Args:
        windows: token ids, (windows, window).

    Returns:
        Block -> the perplexity without it. Raises DataError where there is nothing to predict.
    """
    check_windows(windows)
    modules = [model.get_submodule(name) for name in graph.layer_modules]
    passes = [whole_pass(model, modules, ids) for ids in batches(model, windows, _BATCH)]
    skips = skipping_is_exact(model, modules, passes[0])
    measured = {}
    for done, block in enumerate(blocks, 1):
        assert block.layer is not None, "blocks lie in layers"
        first = block.layer if skips else 0
        with masked(model, graph, {block.id: (0,)}):
            losses = [loss for each in passes for loss in losses_from(model, modules, first, each)]
        measured[block.id] = summarise(losses, windows).ppl
        if on_progress:
            on_progress(done, len(blocks))
    return measured
