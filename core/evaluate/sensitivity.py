"""How fragile each layer is: perplexity when only its attention, its FFN, both, or one head loses units.

What enters a layer does not change when that layer is pruned, so it is kept from one pass over the
dense model, and the layers below are skipped. That costs a little over half of evaluating the whole
model for every point. The model itself still runs its own forward, masks and rotary embeddings
included, so nothing here knows a family.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from core.evaluate.perplexity import (
    batches,
    check_windows,
    next_token_logits,
    summarise,
    window_losses,
)
from core.evaluate.sensitivity_points import points
from core.graph.records import Graph
from core.results.scores import Sensitivity
from core.surgery.masks import masked

_BATCH = 8


@dataclass(frozen=True)
class _Pass:
    """One batch through the dense model.

    Attributes:
        ids: (batch, window).
        left: what each layer returned, in order.
        losses: summed negative log-likelihood of every window, in nats.
    """

    ids: Tensor
    left: list[Any]
    losses: list[float]


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
    on_progress: Callable[[int, int], None] | None = None,
    on_point: Callable[[dict[str, Any]], None] | None = None,
) -> Sensitivity:
    """Prune one layer at a time, by masks, and measure perplexity.

    Args:
        scores: group id -> one score per unit, (units,); the lowest go.
        windows: token ids, (windows, window), without padding.
        ratios: shares of a layer's units that go, in (0, 1], one point for each; at least one unit goes and
            one stays.
        kinds: `attention`, `ffn`, `both` at once, or `head`: every head alone, whatever the ratios.
        layers: which, or None for all.
        criterion: where the scores come from; text: where the windows come from.
        on_progress: told how many points are done.
        on_point: told each point as it is found, the dense model first, as kind `baseline` of no layer.

    Returns:
        A point per layer, kind and ratio, or per head; its `ratio` is the share that went, in whole units,
        its `target` the share asked for, its `unit` the head.

    Raises:
        NotPrunableError: no layer has a scored group of these kinds.
        DataError: there is nothing to predict.
    """
    began = time.perf_counter()
    check_windows(windows)
    todo = points(graph, scores, ratios, kinds, layers)
    modules = [model.get_submodule(name) for name in graph.layer_modules]
    passes = [_dense(model, modules, ids) for ids in batches(model, windows, _BATCH)]
    skip = _skipping_is_exact(model, modules, passes[0])
    dense = summarise([loss for one in passes for loss in one.losses], windows)
    tell = on_point or (lambda _: None)
    tell({"layer": None, "kind": "baseline", "ratio": 0.0, "ppl": dense.ppl})
    found = []
    for done, point in enumerate(todo, 1):
        with masked(model, graph, point.removed):
            first = point.layer if skip else 0
            losses = [loss for one in passes for loss in _losses_from(model, modules, first, one)]
        found.append(point.record(dense, summarise(losses, windows)))
        tell(found[-1])
        if on_progress:
            on_progress(done, len(todo))
    seconds = time.perf_counter() - began
    return Sensitivity(
        dense.ppl, text, dense.window, dense.tokens, criterion, found, seconds, dense.stderr
    )  # fmt: skip


def _dense(model: Any, modules: list[nn.Module], ids: Tensor) -> _Pass:
    """Run the whole model once and keep what leaves every layer."""
    left: list[Any] = []

    def keep(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        # A copy: the next layer may add to it in place.
        left.append((out[0].clone(), *out[1:]) if isinstance(out, tuple) else out.clone())

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        logits = next_token_logits(model, ids)
    finally:
        for hook in hooks:
            hook.remove()
    return _Pass(ids, left, window_losses(logits, ids))


def _losses_from(model: Any, modules: list[nn.Module], layer: int, one: _Pass) -> list[float]:
    """Summed negative log-likelihood of every window when only this layer and those above are run."""
    with _skipped(modules[:layer], one.left):
        return window_losses(next_token_logits(model, one.ids), one.ids)


@contextmanager
def _skipped(modules: list[nn.Module], left: list[Any]) -> Iterator[None]:
    """Let these layers return what they returned before, without work."""

    def recall(out: Any) -> Callable[..., Any]:
        return lambda *_, **__: (out[0].clone(), *out[1:]) if isinstance(out, tuple) else out.clone()

    before = [module.__dict__.get("forward") for module in modules]
    for module, out in zip(modules, left, strict=False):
        module.forward = recall(out)
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            del module.forward
            if own is not None:
                module.forward = own


def _skipping_is_exact(model: Any, modules: list[nn.Module], one: _Pass) -> bool:
    """Whether the last layer alone gives the same; not so where layers share more than one stream."""
    try:
        loss = sum(_losses_from(model, modules, len(modules) - 1, one))
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError):
        return False
    dense = sum(one.losses)
    return abs(loss - dense) <= 1e-4 * max(1.0, abs(dense))
