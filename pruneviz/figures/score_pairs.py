"""Every unit by two criteria: what the browser draws, selects from and counts."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.graph.records import Graph, Group
from pruneviz.figures.scores import UNIT_WORDS, Scores, groups_scored


@dataclass(frozen=True)
class PairInfo:
    """Two scores of every unit of a kind, group after group.

    Attributes:
        x, y: the criteria's names; `xs`, `ys` their scores, (units,).
        groups: (id, layer, units, parameters that go with one unit alone), in order.
        layer: the one layer shown, or None for all.
    """

    x: str
    y: str
    kind: str
    xs: NDArray[np.float32]
    ys: NDArray[np.float32]
    groups: tuple[tuple[str, int | None, int, int], ...]
    layer: int | None

    def to_browser(self) -> dict[str, Any]:
        """Raw float32 numbers as base64, little-endian, and labels."""
        groups = [dict(zip(("id", "layer", "units", "params"), one, strict=True)) for one in self.groups]
        sides = {
            "x": {"name": self.x, "data": _base64(self.xs)},
            "y": {"name": self.y, "data": _base64(self.ys)},
        }
        return {**sides, "groups": groups, "word": UNIT_WORDS[self.kind][1], "layer": self.layer}


def pair_info(
    x: tuple[str, Scores], y: tuple[str, Scores], graph: Graph, kind: str, layer: int | None = None
) -> PairInfo:
    """Line up the scores of two criteria, each given with its name, for the units both have scored."""
    groups = [g for g in groups_scored(x[1], graph, kind, layer) if g.id in y[1]]
    xs, ys = (
        np.concatenate([np.asarray(by[group.id], dtype="<f4") for group in groups]) if groups else _NONE
        for by in (x[1], y[1])
    )
    listed = tuple((group.id, group.layer, group.units, unit_params(graph, group)) for group in groups)
    return PairInfo(x[0], y[0], kind, xs, ys, listed, layer)


_NONE = np.empty(0, dtype="<f4")


def unit_params(graph: Graph, group: Group) -> int:
    """Parameters of one unit's own slices; what it shares with others goes only with the last of them."""
    total = 0
    for member in group.members:
        shape = graph.parameters[member.parameter].shape
        rest = prod(shape) // shape[member.dim] // (shape[0] if member.at is not None else 1)
        total += member.width * rest
    return total


def _base64(values: NDArray[np.float32]) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")
