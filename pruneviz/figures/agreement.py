"""How far criteria agree on which units matter: Spearman's rank correlation of every two."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.graph.records import Graph, Group
from pruneviz.figures.scores import UNIT_WORDS, Scores, groups_scored

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class AgreementInfo:
    """Rank correlations.

    Attributes:
        criteria: names, in the order of the scores.
        matrix: (criteria, criteria), in [-1, 1]; NaN where a criterion ranks nothing, e.g. all alike.
        kind, within: which units; `layer` averages the correlation inside each layer, `model` takes all
            units of the kind together.
    """

    criteria: tuple[str, ...]
    matrix: NDArray[np.float64]
    kind: str
    within: str


def agreement_info(
    scores: Mapping[str, Scores], graph: Graph, kind: str, within: str = "layer"
) -> AgreementInfo:
    """Correlate the ranks of every two criteria over the groups that all of them scored."""
    ids = [
        group.id
        for group in groups_scored(next(iter(scores.values()), {}), graph, kind)
        if all(group.id in by for by in scores.values())
    ]
    parts = [np.stack([by[id_] for by in scores.values()]) for id_ in ids]  # (criteria, units) each
    if within == "model" and parts:
        parts = [np.concatenate(parts, axis=1)]
    ranks = np.stack([spearman(part) for part in parts]) if parts else np.empty((0, len(scores), len(scores)))
    defined = ~np.isnan(ranks)
    total = np.where(defined, ranks, 0.0).sum(axis=0)
    mean = np.divide(total, defined.sum(axis=0), out=np.full(total.shape, np.nan), where=defined.any(axis=0))
    return AgreementInfo(tuple(scores), mean, kind, within)


def spearman(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rank correlation of every two rows, ties sharing their mean rank.

    Args:
        values: (criteria, units).

    Returns:
        (criteria, criteria); NaN for a row without any order.
    """
    ranks = np.stack([_ranks(row) for row in values]) - (values.shape[1] + 1) / 2
    length = np.sqrt((ranks**2).sum(axis=1))
    lengths = np.outer(length, length)
    return np.divide(ranks @ ranks.T, lengths, out=np.full(lengths.shape, np.nan), where=lengths > 0)


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Ranks from 1 up, as SciPy's `rankdata` gives them: for two million units in half its time."""
    if np.isnan(values).any():
        return np.full(len(values), np.nan)
    order = np.argsort(values)
    ordered = values[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))  # of every run of ties
    counts = np.diff(np.append(first, len(values)))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(first + (counts + 1) / 2, counts)
    return ranks


def agreement_figure(info: AgreementInfo) -> go.Figure:
    """The matrix with its numbers; clay disagrees, green agrees. `customdata` names the two criteria."""
    import plotly.graph_objects as go

    count = len(info.criteria)
    shown = np.where(np.isnan(info.matrix), None, info.matrix.round(3)).tolist()  # type: ignore[call-overload]
    figure = go.Figure(
        go.Heatmap(
            z=shown, x=list(info.criteria), y=list(info.criteria), zmin=-1, zmax=1, xgap=1, ygap=1,
            colorscale=[[0, "var(--pv-removed)"], [0.5, "var(--pv-sunken)"], [1, "var(--pv-accent)"]],
            texttemplate="%{z:.2f}" if count <= 18 else None, textfont={"size": 12 if count <= 10 else 10},
            hovertemplate="%{y} and %{x}: %{z:.3f}<extra></extra>", showscale=False, hoverongaps=False,
        )
    )  # fmt: skip
    figure.update_layout(
        height=150 + 30 * max(count, 6), margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis={"showgrid": False, "tickangle": -40, "automargin": True, "tickfont": {"size": 12}},
        yaxis={"showgrid": False, "autorange": "reversed", "automargin": True, "tickfont": {"size": 12}},
        meta={"description": "Spearman rank correlation of every two criteria"},
    )  # fmt: skip
    return figure


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
