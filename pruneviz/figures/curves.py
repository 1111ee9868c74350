"""Curves of a run: every metric that has at least two points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.events import Event, metric_series
from pruneviz.figures.training import PREFIX

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Metric -> (what a person reads, the colour it has everywhere).
NAMES = {
    "sensitivity.attention": ("Perplexity, attention pruned", "var(--pv-attention)"),
    "sensitivity.ffn": ("Perplexity, feed-forward pruned", "var(--pv-ffn)"),
    "sensitivity.both": ("Perplexity, both pruned", "var(--pv-residual)"),
}


@dataclass(frozen=True)
class CurvesInfo:
    """Metric name -> its steps and its values, both in order."""

    curves: dict[str, tuple[list[float], list[float]]]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw yet."""
        return not self.curves


def curves_info(events: list[Event]) -> CurvesInfo:
    """Only what makes a line, but for trainings, which have a figure of their own."""
    series = metric_series(events)
    return CurvesInfo(
        {
            name: ([step for step, _ in points], [value for _, value in points])
            for name, points in series.items()
            if len(points) > 1 and not name.startswith(PREFIX)
        }
    )


def _named(name: str) -> tuple[str, str]:
    """What a person reads and the colour; `sensitivity.ffn.0.5` says how much of the layer went."""
    scan, _, rest = name.partition(".")
    kind, _, which = rest.partition(".")
    if kind == "head":
        return f"Perplexity without head {which}", "var(--pv-quiet)"
    title, colour = NAMES.get(f"{scan}.{kind}" if kind else scan, (name, "var(--pv-accent)"))
    return (f"{title} by {float(which):.0%}" if which and title != name else title), colour


def curves_figure(info: CurvesInfo) -> go.Figure:
    """One line per metric."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, (steps, values) in info.curves.items():
        title, colour = _named(name)
        line = {"color": colour, "width": 2}
        figure.add_scatter(x=steps, y=values, name=title, mode="lines+markers", line=line, marker={"size": 5})
    by_layer = all(name.startswith("sensitivity.") for name in info.curves)
    figure.update_layout(
        height=300,
        margin={"l": 64, "r": 16, "t": 12, "b": 52},
        legend={"orientation": "h", "y": 1.14},
        xaxis={"title": {"text": "Layer" if by_layer else "Step", "font": {"size": 13}}},
        yaxis={
            "title": {"text": "Perplexity" if by_layer else "Value", "font": {"size": 13}},
            "rangemode": "tozero",
        },
        meta={"description": "Curves of this run: " + ", ".join(info.curves)},
    )
    return figure
