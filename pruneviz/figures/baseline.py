"""The dotted line of the dense model, in every chart of perplexity."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pruneviz import words

if TYPE_CHECKING:
    import plotly.graph_objects as go


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
