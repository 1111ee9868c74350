"""What a sensitivity scan prunes, point by point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import NotPrunableError
from core.graph.records import Graph, Group
from core.results.noise import perplexity_difference
from core.results.perplexity import Perplexity

#: The kinds of units that a point prunes, in order of preference: a family may lack the first.
UNIT_KINDS: dict[str, tuple[str, ...]] = {"attention": ("query_head", "kv_group"), "ffn": ("ffn_channel",)}
Scores = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Point:
    """Units of one layer that go together.

    Attributes:
        kind: `attention`, `ffn`, `both`, or `head`: one head alone, whose number is `unit`.
        target: the share that was to go; `ratio` is what it came to in whole units.
        removed: group id -> units that go.
    """

    layer: int
    kind: str
    target: float | None
    ratio: float
    removed: dict[str, tuple[int, ...]]
    unit: int | None = None

    @property
    def name(self) -> str:
        """What tells it from the others of a scan: `12.ffn.0.5`, `3.head.7`."""
        return f"{self.layer}.{self.kind}.{self.target if self.unit is None else self.unit}"

    def record(self, dense: Perplexity, measured: Perplexity) -> dict[str, Any]:
        """The point as `sensitivity.json` holds it."""
        record = {
            "layer": self.layer,
            "kind": self.kind,
            "ratio": self.ratio,
            "ppl": measured.ppl,
            "ppl_stderr": measured.stderr,
            "change_stderr": perplexity_difference(dense, measured).noise,
        }
        return record | ({"unit": self.unit} if self.unit is not None else {"target": self.target})


def points(
    graph: Graph,
    scores: Scores,
    ratios: Sequence[float],
    kinds: Sequence[str],
    layers: Sequence[int] | None = None,
) -> list[Point]:
    """List what to prune, layer by layer.

    Raises:
        NotPrunableError: no layer has a scored group of these kinds.
    """
    numbers = range(len(graph.layer_modules)) if layers is None else layers
    listed = [
        point
        for layer in numbers
        for kind in kinds
        for point in _of_layer(graph, scores, layer, kind, ratios)
    ]
    if not listed:
        raise NotPrunableError(f"No layer has scored units of {' or '.join(kinds)}; score the model first.")
    return listed


def _of_layer(
    graph: Graph, scores: Scores, layer: int, kind: str, ratios: Sequence[float]
) -> Iterator[Point]:
    if kind == "head":
        group = _group(graph, scores, layer, "attention")
        for unit in range(group.units if group else 0):
            assert group is not None
            yield Point(layer, kind, None, 1 / group.units, {group.id: (unit,)}, unit)
        return
    parts = ("attention", "ffn") if kind == "both" else (kind,)
    groups = [group for part in parts if (group := _group(graph, scores, layer, part))]
    if len(groups) < len(parts):
        return
    for target in ratios:
        removed = {group.id: lowest(scores[group.id], target) for group in groups}
        # Of several groups the mean share, because a channel is not a head.
        shares = [len(removed[group.id]) / group.units for group in groups]
        yield Point(layer, kind, target, sum(shares) / len(shares), removed)


def _group(graph: Graph, scores: Scores, layer: int, kind: str) -> Group | None:
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


def curve_of(point: dict[str, Any]) -> str:
    """The name of the metric a point belongs to, e.g. `sensitivity.ffn.0.5`, `sensitivity.head.3`."""
    number = point.get("unit", point.get("target"))
    return f"sensitivity.{point['kind']}" + ("" if number is None else f".{number:g}")
