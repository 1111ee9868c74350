"""How large the features are that each layer's matrices read, of one model or two."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from core.results.activations import PLACES, Activation, Activations, Place
from pruneviz.figures.axes import round_marks
from pruneviz.figures.render import render

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = {"attention": "attention", "attention_out": "residual", "ffn": "ffn", "ffn_out": "accent"}
SYMBOLS = {"attention": "circle", "attention_out": "square", "ffn": "diamond", "ffn_out": "triangle-up"}
FEW_LAYERS = 10
_DASHES = ("solid", "dot")


@dataclass(frozen=True)
class ActivationsInfo:
    """Curves over layers, of the model at hand first.

    Attributes:
        curves: model -> place -> its points in the order of layers.
        notes: how each was measured.
    """

    curves: Mapping[str, Mapping[Place, tuple[Activation, ...]]]
    notes: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(points for curves in self.curves.values() for points in curves.values())

    @property
    def means(self) -> list[float]:
        """Every mean above 0."""
        return [p.mean for by in self.curves.values() for points in by.values() for p in points if p.mean > 0]

    @property
    def log(self) -> bool:
        """Whether the points span so much that a logarithmic axis reads better."""
        return bool(self.means) and max(self.means) > 10 * min(self.means)


def activations_info(records: Mapping[str, Activations]) -> ActivationsInfo:
    """The curves of one model or several, by the name that each has for people."""
    curves = {
        name: {
            place: tuple(sorted((p for p in record.points if p.place == place), key=lambda p: p.layer))
            for place in PLACES
        }
        for name, record in records.items()
    }
    notes = tuple(
        f"{name}: {record.tokens:,} tokens of “{record.text}”"
        + (f", mean {mean_of(record):.3g} over all layers" if record.points else "")
        for name, record in records.items()
    )
    return ActivationsInfo(curves, notes)


def mean_of(record: Activations) -> float:
    """The mean of all curves of a model: one number, to compare models by."""
    return sum(point.mean for point in record.points) / len(record.points)


def about_html(info: ActivationsInfo) -> Markup:
    """How it was measured, and every point as a file."""
    return render("activations.html", notes=info.notes, csv=activations_csv(info))


def activations_figure(info: ActivationsInfo) -> go.Figure:
    """One line per place, the second model's dotted."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, (name, curves) in enumerate(info.curves.items()):
        for place, points in curves.items():
            if not points:
                continue
            title = PLACES[place]
            figure.add_scatter(
                x=[point.layer for point in points], y=[point.mean for point in points],
                customdata=[[f"{point.rms:.3g}", f"{point.largest:,.3g}"] for point in points],
                name=f"{name}: {title}" if len(info.curves) > 1 else title[0].upper() + title[1:],
                mode="lines+markers",
                line={"color": f"var(--pv-{COLOURS[place]})", "width": 2, "dash": _DASHES[number % 2]},
                marker={"size": 6, "symbol": SYMBOLS[place] + ("-open" if number % 2 else "")},
                hovertemplate="layer %{x}: mean %{y:.3g}, root mean square %{customdata[0]}, "
                "largest %{customdata[1]}",
            )  # fmt: skip
    title_of: dict[str, object] = {"font": {"size": 13}}
    axis: dict[str, object] = {"rangemode": "tozero"}
    last = max((x for trace in figure.data for x in trace.x), default=0)
    whole = last >= FEW_LAYERS  # of fewer, marks would stand between layers
    if info.log:
        marks = round_marks(info.means)
        axis = {"type": "log", "tickvals": marks, "ticktext": [f"{mark:g}" for mark in marks]}
    figure.update_layout(
        height=430 + 22 * max(0, len(info.curves) - 1) * 2,
        margin={"l": 64, "r": 24, "t": 78, "b": 56},
        legend={"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom"},
        xaxis={"title": title_of | {"text": "Layer"}, "tickmode": "auto" if whole else "linear", "dtick": 1},
        yaxis={"title": title_of | {"text": "Mean size of a feature"}, **axis},
        meta={"description": "Mean absolute activation over layers, at four places of each layer"},
    )  # fmt: skip
    return figure


def activations_csv(info: ActivationsInfo) -> str:
    """One line per point."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "layer", "place", "mean", "rms", "largest"])
    for name, curves in info.curves.items():
        for place, points in curves.items():
            for point in points:
                writer.writerow([name, point.layer, place, point.mean, point.rms, point.largest])
    return out.getvalue()
