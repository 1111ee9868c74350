"""The masks while they are learned: layers x heads, and how much of each layer's width is still open."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from core.results import words
from core.results.masks import MaskState
from pruneviz.figures.states import paragraph_html

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: So many cells of width are drawn at most, and so many layers are numbered.
BINS, TICKS = 96, 12
#: Kind -> (what a column is, colour, whether units keep their places).
KINDS = {
    "query_head": ("Query head", "attention", True),
    "kv_group": ("Key-value group", "attention", True),
    "ffn_channel": ("FFN width, widest gate first", "ffn", False),
    "residual_channel": ("Hidden width, widest gate first", "residual", False),
}


@dataclass(frozen=True)
class KindMask:
    """The masks of one kind.

    Attributes:
        edges: where cells begin and end along the units, (cells + 1,).
        factors: mean factor of every cell in [0, 1], (layers, cells); None where a layer has no such units.
        stays: units of every layer that would stay if the model were cut now; units: of how many.
    """

    edges: list[float]
    factors: list[list[float | None]]
    stays: list[int]
    units: list[int]


@dataclass(frozen=True)
class MaskInfo:
    """The masks after `step` of `steps`, by kind."""

    step: int
    steps: int
    kinds: dict[str, KindMask]


def mask_info(state: MaskState) -> MaskInfo:
    """Heads in their places; channels sorted in every layer, so that the width that is left can be seen."""
    kinds = {
        kind: _kind(kind, state.factors[kind], state.stays[kind]) for kind in KINDS if kind in state.factors
    }
    return MaskInfo(state.step, state.steps, kinds)


def _kind(kind: str, factors: NDArray[np.float32], stays: NDArray[np.bool_]) -> KindMask:
    units = factors.shape[1]
    measured = ~np.isnan(factors)
    if not KINDS[kind][2]:
        factors = -np.sort(-factors, axis=1)  # NaN stays last
    edges = np.linspace(0, units, min(units, BINS) + 1).round().astype(int)
    cells = [factors[:, low:high] for low, high in pairwise(edges)]
    means = [[_mean(cell[layer]) for cell in cells] for layer in range(len(factors))]
    shift = 0.5 if KINDS[kind][2] else 0.0  # a head's cell is centred on its number
    return KindMask(
        [float(edge) - shift for edge in edges], means,
        [int(row.sum()) for row in stays & measured], [int(row.sum()) for row in measured],
    )  # fmt: skip


def _mean(cell: NDArray[np.float32]) -> float | None:
    values = cell[~np.isnan(cell)]
    return round(float(values.mean()), 3) if values.size else None


def mask_html(info: MaskInfo) -> Markup:
    """What the colours say, and what would stay."""
    left = []
    for kind, mask in info.kinds.items():
        name = KINDS[kind][0].split(",")[0].lower().replace("ffn", "FFN")
        total = sum(mask.units)
        share = words.percent(sum(mask.stays) / total if total else None)
        left.append(f"{share} of {name}{'s' if KINDS[kind][2] else ''}")
    text = (
        f"Masks after step {info.step:,} of {info.steps:,}. Full colour: kept whole; empty: gone. "
        f"Cut now, there would stay {', '.join(left)}."
    )
    return paragraph_html(text, "readout")


def mask_figure(info: MaskInfo) -> go.Figure:
    """One panel per kind side by side, over the same layers; hidden channels as one row below."""
    import plotly.graph_objects as go

    figure = go.Figure()
    beside = [kind for kind in info.kinds if kind != "residual_channel"]
    below = "residual_channel" in info.kinds
    layers = max((len(info.kinds[kind].factors) for kind in beside), default=0)
    starts = [(0.0, 0.34), (0.4, 1.0)] if len(beside) == 2 else [(0.0, 1.0)]
    foot = 0.2 if below and beside else 0.0
    for number, (kind, place) in enumerate(zip(beside, starts, strict=False), start=1):
        _panel(figure, kind, info.kinds[kind], number, place, (foot, 1.0), names=number == 1)
    if below:
        _panel(
            figure, "residual_channel", info.kinds["residual_channel"], 3, (0.0, 1.0),
            (0.0, 0.08 if beside else 1.0),
        )  # fmt: skip
    figure.update_layout(
        height=110 + 13 * max(8, layers) + (90 if below else 0), margin={"l": 56, "r": 16, "t": 12, "b": 46},
        meta={"description": "How open the mask of every head is, and how wide every layer still is"},
    )  # fmt: skip
    return figure


def _panel(
    figure: go.Figure,
    kind: str,
    mask: KindMask,
    number: int,
    across: tuple[float, float],
    down: tuple[float, float],
    names: bool = False,
) -> None:
    """Add one heatmap with axes of its own."""
    title, colour, placed = KINDS[kind]
    x, y = (f"{axis}{number if number > 1 else ''}" for axis in "xy")
    layered = kind != "residual_channel"
    where = "layer %{y}: " if layered else ""
    left = [
        [f"{s:,} of {n:,}"] * len(row) for s, n, row in zip(mask.stays, mask.units, mask.factors, strict=True)
    ]
    figure.add_heatmap(
        z=mask.factors, x=mask.edges, y=list(range(len(mask.factors))), customdata=left, xaxis=x, yaxis=y,
        xgap=1 if placed else 0, ygap=1, zmin=0, zmax=1, showscale=False,
        colorscale=[[0, "var(--pv-sunken)"], [1, f"var(--pv-{colour})"]],
        hovertemplate=f"{where}factor %{{z:.2f}}, %{{customdata}} stay<extra></extra>",
    )  # fmt: skip
    size = {"font": {"size": 13}}
    figure.layout[x.replace("x", "xaxis")] = {
        "domain": list(across), "anchor": y, "title": {"text": title, **size}, "showgrid": False,
        "zeroline": False, "range": [mask.edges[0], mask.edges[-1]],
    }  # fmt: skip
    figure.layout[y.replace("y", "yaxis")] = {
        "domain": list(down), "anchor": x, "range": [len(mask.factors) - 0.5, -0.5], "showgrid": False,
        "zeroline": False, "title": {"text": "Layer" if names else "", **size}, "showticklabels": layered,
        "dtick": -(-len(mask.factors) // TICKS),
    }  # fmt: skip
