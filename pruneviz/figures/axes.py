"""Axes that several figures share: perplexity, and curves thinned to what a screen shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.results import words

if TYPE_CHECKING:
    import plotly.graph_objects as go


def perplexity_axis(values: Sequence[float | None], log: bool) -> dict[str, Any]:
    """The y axis for these perplexities; a logarithmic one is marked at round numbers, written in full."""
    axis: dict[str, Any] = {"title": {"text": "Perplexity", "font": {"size": 13}}}
    known = [value for value in values if value is not None and math.isfinite(value) and value > 0]
    if not log or not known:
        return axis | {"type": "log" if log else "linear"}
    marks = round_marks(known)
    return axis | {"type": "log", "tickvals": marks, "ticktext": [words.count(mark) for mark in marks]}


def round_marks(values: Sequence[float]) -> list[float]:
    """Round numbers to mark a logarithmic axis at; the values are above 0, and not empty."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    return [step * 10.0**power for power in range(first, last + 1) for step in steps]


def add_baseline(figure: go.Figure, ppl: float | None, log: bool, side: str) -> None:
    """Draw it at `ppl`, named on the `left` or `right`; nothing where it is unknown or infinite.

    On a logarithmic axis plotly wants the place of a note as a logarithm, but that of a line as it is.
    """
    if ppl is None or not math.isfinite(ppl) or ppl <= 0:
        return
    figure.add_shape(
        type="line", xref="paper", x0=0, x1=1, y0=ppl, y1=ppl,
        line={"dash": "dot", "width": 1.5, "color": "var(--pv-quiet)"},
    )  # fmt: skip
    figure.add_annotation(
        text=f"nothing pruned: {words.perplexity(ppl)}", font={"size": 12}, showarrow=False, xref="paper",
        x=0 if side == "left" else 1, xanchor=side, y=math.log10(ppl) if log else ppl, yanchor="top",
    )  # fmt: skip


#: A curve is drawn with at most about so many points.
POINTS = 400
#: Shorter curves show each point as a dot.
DOTS = 40


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Every so many-th point and the last one, `POINTS` + 1 at most.

    Evenly by number and not by value, so that curves told at the same steps keep the same ones: one hover
    then reads them all.

    Args:
        points: step and value, in order; not empty.
    """
    stride = -(-len(points) // POINTS)
    return [*points[:-1:stride], points[-1]]


def mode(points: Sequence[object]) -> str:
    """How Plotly draws a curve of so many points; a dot is an element of the page each."""
    return "lines+markers" if len(points) < DOTS else "lines"
