"""How fragile each layer is: perplexity when only its attention or only its FFN loses units.

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

from core.artifacts import Sensitivity
from core.errors import NotPrunableError
from core.evaluate.perplexity import (
    batches,
    check_windows,
    negative_log_likelihood,
    next_token_logits,
    summarise,
)
from core.graph.records import Graph, Group
from core.masks import masked

#: What is pruned for one point, in order of preference: a family may lack the first.
UNIT_KINDS: dict[str, tuple[str, ...]] = {"attention": ("query_head", "kv_group"), "ffn": ("ffn_channel",)}
_BATCH = 8


@dataclass(frozen=True)
class _Point:
    layer: int
    kind: str
    group: Group
    units: tuple[int, ...]

    @property
    def ratio(self) -> float:
        return len(self.units) / self.group.units


@dataclass(frozen=True)
class _Pass:
    """One batch through the dense model.

    Attributes:
        ids: (batch, window).
        left: what each layer returned, in order.
        loss: summed negative log-likelihood, in nats.
    """

    ids: Tensor
    left: list[Any]
    loss: float


def scan(
    model: Any,
    graph: Graph,
    scores: dict[str, NDArray[np.float32]],
    windows: Tensor,
    *,
    ratio: float,
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
        ratio: share of a layer's units that goes, in (0, 1]; at least one goes and one stays.
        layers: which, or None for all.
        criterion: where the scores come from; text: where the windows come from.
        on_progress: told how many points are done.
        on_point: told each point as it is found, the dense model first, as kind `baseline` of no layer.

    Returns:
        A point per layer and kind; its `ratio` is the share that went, after rounding to whole units.

    Raises:
        NotPrunableError: no layer has a scored group of these kinds.
        DataError: there is nothing to predict.
    """
    began = time.perf_counter()
    check_windows(windows)
    todo = _points(graph, scores, ratio, kinds, layers)
    modules = [model.get_submodule(name) for name in graph.layer_modules]
    passes = [_dense(model, modules, ids) for ids in batches(model, windows, _BATCH)]
    skip = _skipping_is_exact(model, modules, passes[0])
    dense = summarise(sum(one.loss for one in passes), windows)
    tell = on_point or (lambda _: None)
    tell({"layer": None, "kind": "baseline", "ratio": 0.0, "ppl": dense.ppl})
    found = []
    for done, point in enumerate(todo, 1):
        with masked(model, graph, {point.group.id: point.units}):
            loss = sum(_loss_from(model, modules, point.layer if skip else 0, one) for one in passes)
        ppl = summarise(loss, windows).ppl
        found.append({"layer": point.layer, "kind": point.kind, "ratio": point.ratio, "ppl": ppl})
        tell(found[-1])
        if on_progress:
            on_progress(done, len(todo))
    seconds = time.perf_counter() - began
    return Sensitivity(dense.ppl, text, dense.window, dense.tokens, criterion, found, seconds)


def _points(
    graph: Graph,
    scores: dict[str, NDArray[np.float32]],
    ratio: float,
    kinds: Sequence[str],
    layers: Sequence[int] | None,
) -> list[_Point]:
    """What to prune, layer by layer."""
    chosen = range(len(graph.layer_modules)) if layers is None else layers
    found = []
    for layer in chosen:
        for kind in kinds:
            group = _group(graph, scores, layer, kind)
            if group is not None:
                found.append(_Point(layer, kind, group, lowest(scores[group.id], ratio)))
    if not found:
        raise NotPrunableError(f"No layer has scored units of {' or '.join(kinds)}; score the model first.")
    return found


def _group(graph: Graph, scores: dict[str, NDArray[np.float32]], layer: int, kind: str) -> Group | None:
    for unit_kind in UNIT_KINDS[kind]:
        for group in graph.of_kind(unit_kind):
            if group.layer == layer and group.prunable and group.units > 1 and group.id in scores:
                return group
    return None


def lowest(scores: NDArray[np.float32], ratio: float) -> tuple[int, ...]:
    """The units with the lowest scores, sorted by number; at least one, and never all."""
    count = min(max(1, round(ratio * len(scores))), len(scores) - 1)
    order = np.argsort(scores, kind="stable")[:count]
    return tuple(sorted(int(unit) for unit in order))


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
    return _Pass(ids, left, negative_log_likelihood(logits, ids))


def _loss_from(model: Any, modules: list[nn.Module], layer: int, one: _Pass) -> float:
    """Summed negative log-likelihood when only this layer and those above are run."""
    with _skipped(modules[:layer], one.left):
        return negative_log_likelihood(next_token_logits(model, one.ids), one.ids)


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
        loss = _loss_from(model, modules, len(modules) - 1, one)
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError):
        return False
    return abs(loss - one.loss) <= 1e-4 * max(1.0, abs(one.loss))
