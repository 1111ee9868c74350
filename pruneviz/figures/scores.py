"""What a criterion says of every unit: layers x units, as one heat map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.graph.records import Graph, Group

if TYPE_CHECKING:
    import plotly.graph_objects as go

Scores = Mapping[str, NDArray[np.float32]]
#: Kind -> (several, one), as people read them.
UNIT_WORDS = {
    "ffn_channel": ("Feed-forward channels", "channel"),
    "query_head": ("Query heads", "head"),
    "kv_group": ("Key-value groups", "key-value group"),
    "residual_channel": ("Hidden channels", "hidden channel"),
}
WITHIN = {"Each layer": "layer", "Whole model": "model"}
ORDERS = {"Lowest first": "sorted", "By number": "number"}
#: Columns of the map; a layer with more units shows the mean of several in one cell.
COLUMNS = 96
_ROW_PX, _MARGIN_PX = 15, 120


@dataclass(frozen=True)
class HeatInfo:
    """Scores of one kind, layer by layer.

    Attributes:
        layers: layer numbers, (rows,).
        raw: mean score of the units in a cell, (rows, columns); NaN where a layer has no such column.
        relative: decimal logarithm of `raw` over the median of the layer or model; where scores may be
            negative, `raw` over the largest absolute score instead. (rows, columns).
        names: which units a cell holds, (rows, columns).
        logarithmic: how `relative` is to be read.
        binned: whether a cell holds more than one unit.
    """

    criterion: str
    kind: str
    within: str
    order: str
    layers: tuple[int, ...]
    raw: NDArray[np.float64]
    relative: NDArray[np.float64]
    names: tuple[tuple[str, ...], ...]
    logarithmic: bool
    binned: bool


def kinds_scored(scores: Scores, graph: Graph) -> list[str]:
    """Kinds with at least one scored group, in the order of `UNIT_WORDS`."""
    there = {group.kind for group in graph.groups if group.id in scores}
    return [kind for kind in UNIT_WORDS if kind in there]


def groups_scored(scores: Scores, graph: Graph, kind: str, layer: int | None = None) -> list[Group]:
    """Scored groups of one kind, of one layer or of all, in the order of the layers."""
    groups = [group for group in graph.of_kind(kind) if group.id in scores]
    return sorted((g for g in groups if layer is None or g.layer == layer), key=lambda g: g.layer or 0)


def heat_info(
    scores: Scores, graph: Graph, criterion: str, kind: str, *, within: str = "layer", order: str = "sorted"
) -> HeatInfo:
    """Collect what the map shows.

    Args:
        scores: group id -> (units,), of one criterion.
        within: `layer` measures a score against its layer, `model` against all units of the kind.
        order: `sorted` puts the lowest score of every layer first; `number` keeps the units' order.
    """
    groups = groups_scored(scores, graph, kind)
    columns = min(COLUMNS, max((group.units for group in groups), default=0))
    whole = np.concatenate([scores[group.id] for group in groups]).astype(float) if groups else np.empty(0)
    logarithmic = bool(np.all(whole >= 0)) and bool(np.median(whole) > 0) if len(whole) else False
    model = _scale(whole, logarithmic) if within == "model" else None
    raw = np.full((len(groups), columns), np.nan)
    relative, names = raw.copy(), []
    for row, group in enumerate(groups):
        values = np.asarray(scores[group.id], dtype=float)
        units = np.argsort(values, kind="stable") if order == "sorted" else np.arange(len(values))
        cells = np.array_split(units, min(columns, len(units)))
        raw[row, : len(cells)] = [values[cell].mean() for cell in cells]
        relative[row] = _relative(raw[row], model or _scale(values, logarithmic), logarithmic)
        names.append(_names(cells, columns, UNIT_WORDS[kind][1], order))
    layers = tuple(group.layer if group.layer is not None else -1 for group in groups)
    binned = any(group.units > columns for group in groups)
    return HeatInfo(criterion, kind, within, order, layers, raw, relative, tuple(names), logarithmic, binned)


def _scale(against: NDArray[np.float64], logarithmic: bool) -> tuple[float, float]:
    """What scores are measured against, and the lowest that is drawn: 0 where none is above it."""
    if not logarithmic:
        return float(np.abs(against).max()) or 1.0, 0.0
    positive = against[against > 0]
    if not len(positive):
        return 1.0, 0.0
    # A score of zero has no logarithm: it is drawn as the lowest score that has one.
    return float(np.median(against) or np.median(positive)), float(positive.min())


def _relative(
    cells: NDArray[np.float64], scale: tuple[float, float], logarithmic: bool
) -> NDArray[np.float64]:
    middle, lowest = scale
    if not logarithmic:
        return cells / middle
    if not lowest:
        return np.where(np.isnan(cells), np.nan, 0.0)
    return np.log10(np.maximum(cells, lowest) / middle)


def _names(cells: list[NDArray[np.int64]], columns: int, word: str, order: str) -> tuple[str, ...]:
    names, first = [], 1
    for cell in cells:
        last = first + len(cell) - 1
        if len(cell) == 1:
            names.append(f"{word} {cell[0]}")
        elif order == "sorted":
            names.append(f"ranks {first:,}–{last:,}, lowest first")
        else:
            names.append(f"{word}s {cell[0]:,}–{cell[-1]:,}")
        first = last + 1
    return (*names, *[""] * (columns - len(cells)))


def heat_figure(info: HeatInfo) -> go.Figure:
    """One row per layer, layer 0 on top; clay is low and goes first, green is high and stays."""
    import plotly.graph_objects as go

    rows, columns = info.raw.shape
    most = float(np.nanquantile(np.abs(info.relative), 0.98)) if info.relative.size else 1.0
    most = max(most, 0.05)
    detail = np.empty((rows, columns, 4), dtype=object)
    detail[:, :, 0], detail[:, :, 1] = np.array(info.names, dtype=object).reshape(rows, columns), info.raw
    detail[:, :, 2] = np.where(info.logarithmic, 10.0**info.relative, info.relative)
    detail[:, :, 3] = np.array(info.layers, dtype=object).reshape(rows, 1)
    figure = go.Figure(
        go.Heatmap(
            z=info.relative, y=list(range(rows)), customdata=detail, zmin=-most, zmax=most,
            colorscale=[[0, "var(--pv-removed)"], [0.5, "var(--pv-sunken)"], [1, "var(--pv-accent)"]],
            xgap=0 if columns > 40 else 1, ygap=1, hovertemplate=_hover(info), colorbar=_colorbar(info, most),
        )
    )  # fmt: skip
    every = max(1, rows // 16)
    figure.update_layout(
        height=_MARGIN_PX + max(6, rows) * _ROW_PX, margin={"l": 56, "r": 16, "t": 14, "b": 46},
        xaxis={"title": {"text": _axis(info), "font": {"size": 13}}, "showgrid": False, "zeroline": False,
               "showticklabels": not info.binned and info.order == "number"},
        yaxis={"title": {"text": "Layer", "font": {"size": 13}}, "autorange": "reversed", "showgrid": False,
               "zeroline": False, "tickvals": list(range(0, rows, every)),
               "ticktext": [str(layer) for layer in info.layers[::every]]},
        meta={"description": f"Scores by {info.criterion} of every unit, layer by layer"},
    )  # fmt: skip
    return figure


def _hover(info: HeatInfo) -> str:
    median = "the layer’s median" if info.within == "layer" else "the model’s median"
    last = (
        f"×%{{customdata[2]:.3g}} of {median}" if info.logarithmic else "%{customdata[2]:.3f} of the largest"
    )
    where = "layer %{customdata[3]}, %{customdata[0]}"
    return f"{where}<br>score %{{customdata[1]:.4g}}<br>{last}<extra></extra>"


def _axis(info: HeatInfo) -> str:
    several = UNIT_WORDS[info.kind][0]
    if info.order == "sorted":
        return f"{several}, lowest score of each layer on the left"
    return f"{several} by number" + (", neighbours averaged" if info.binned else "")


def _colorbar(info: HeatInfo, most: float) -> dict[str, Any]:
    bar: dict[str, Any] = {"thickness": 12, "outlinewidth": 0, "len": 1.0, "tickfont": {"size": 11}}
    if not info.logarithmic:
        return bar | {"title": {"text": "of largest", "font": {"size": 11}}}
    ticks = [-most, -most / 2, 0.0, most / 2, most]
    return bar | {
        "title": {"text": "× median", "font": {"size": 11}},
        "tickvals": ticks,
        "ticktext": [f"{10**tick:.2g}" for tick in ticks],
    }
