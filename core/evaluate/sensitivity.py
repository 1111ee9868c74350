"""How fragile each layer is: perplexity when only its attention, its FFN, both, or one head loses units.

What enters a layer does not change when that layer is pruned, so it is taken from one pass over the
dense model, and the layers below are skipped. That costs a little over half of evaluating the whole
model for every point. The model still runs its own forward, with its masks and rotary embeddings, so
nothing here depends on the family.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from core.evaluate.passes import losses_from, skipping_is_exact, whole_pass
from core.evaluate.perplexity import batches, check_windows, summarise
from core.evaluate.sensitivity_points import Point, points
from core.graph.records import Graph
from core.results.sensitivity import Sensitivity
from core.spec.evaluate import WORKBENCH
from core.surgery.masks import masked

_BATCH = 8
Record = dict[str, Any]
#: A point's name and what measures it -> its record; one that was measured before is not measured again.
Keep = Callable[[str, Callable[[], Record]], Record]


def scan(
    model: Any,
    graph: Graph,
    scores: dict[str, NDArray[np.float32]],
    windows: Tensor,
    *,
    ratios: Sequence[float],
    kinds: Sequence[str] = ("attention", "ffn"),
    layers: Sequence[int] | None = None,
    criterion: str,
    text: str,
    protocol: str = WORKBENCH,
    on_progress: Callable[[int, int], None] | None = None,
    on_point: Callable[[Record], None] | None = None,
    keep: Keep | None = None,
) -> Sensitivity:
    """Prune one layer at a time, by masks, and measure perplexity.

    Args:
        scores: group id -> one score per unit, (units,); the lowest go.
        windows: token ids, (windows, window), without padding.
        ratios: shares of a layer's units that go, in (0, 1], one point for each; at least one unit goes
            and one stays.
        kinds: `attention`, `ffn`, `both` at once, or `head`: every head alone, whatever the ratios.
        layers: their numbers, or None for all.
        criterion: where the scores come from; text, protocol: where the windows come from.
        on_progress: called with the points that are done and in all.
        on_point: called with each point once it is measured; first the dense model, as kind `baseline` of
            no layer.
        keep: what knows points that were measured before, of the same model, scores and windows.

    Returns:
        A point per layer, kind and ratio, or per head. Its `ratio` is the share that went, in whole units,
        its `target` the share that was to go, its `unit` the head.

    Raises:
        NotPrunableError: no layer has a scored group of these kinds.
        DataError: there is nothing to predict.
    """
    began = time.perf_counter()
    check_windows(windows)
    todo = points(graph, scores, ratios, kinds, layers)
    modules = [model.get_submodule(name) for name in graph.layer_modules]
    passes = [whole_pass(model, modules, ids) for ids in batches(model, windows, _BATCH)]
    skip = skipping_is_exact(model, modules, passes[0])
    dense = summarise([loss for dense_pass in passes for loss in dense_pass.losses], windows)
    tell = on_point or (lambda _: None)
    tell({"layer": None, "kind": "baseline", "ratio": 0.0, "ppl": dense.ppl})

    def measure(point: Point) -> Record:
        with masked(model, graph, point.removed):
            first = point.layer if skip else 0
            losses = [loss for each in passes for loss in losses_from(model, modules, first, each)]
        return point.record(dense, summarise(losses, windows))

    records = []
    for done, point in enumerate(todo, 1):
        records.append(keep(point.name, partial(measure, point)) if keep else measure(point))
        tell(records[-1])
        if on_progress:
            on_progress(done, len(todo))
    seconds = time.perf_counter() - began
    return Sensitivity(
        dense.ppl, text, dense.window, dense.tokens, criterion, records, seconds, dense.stderr, protocol
    )
