"""How wide every layer is after pruning: against uniform, other runs and the paper, over the sensitivity."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from core.results import words
from core.results.widths import Widths
from pruneviz.data.published import PublishedTable, published_table
from pruneviz.figures.agreement import spearman
from pruneviz.figures.axes import perplexity_axis
from pruneviz.figures.render import render
from pruneviz.figures.sensitivity import COLOURS, SYMBOLS, SensitivityInfo

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: What of a layer -> (title, what of a layer a sensitivity scan prunes for it).
PARTS = {
    "query_heads": ("Query heads", "attention"),
    "kv_heads": ("Key-value heads", "attention"),
    "ffn": ("FFN width", "ffn"),
}
#: Tables of learned widths -> the dense LLaMA-7B they are of.
PUBLISHED = ("nuteprune_table_16", "nuteprune_table_17")
LLAMA_7B = {"query_heads": 32, "ffn": 11008, "hidden": 4096}
#: A rank correlation nearer to 0 says nothing.
CLEAR = 0.3
LINES = ("solid", "dash", "dot", "dashdot", "longdash")
MARKS = ("accent", "removed", "residual", "embedding", "quiet")


@dataclass(frozen=True)
class Profile:
    """The widths of one model.

    Attributes:
        name: whose they are.
        left: part -> units left in every layer, None where it is not known.
        dense: part -> units of a layer before; parts the model does not have are missing.
        hidden, dense_hidden: width of the residual stream, after and before.
    """

    name: str
    left: dict[str, list[int | None]]
    dense: dict[str, int]
    hidden: int
    dense_hidden: int

    @property
    def layers(self) -> int:
        """How many layers it has."""
        return max(map(len, self.left.values()), default=0)

    def shares(self, part: str) -> list[float | None]:
        """The share of every layer that is left, in [0, 1]."""
        return [None if n is None else n / self.dense[part] for n in self.left.get(part, [])]

    def share(self, part: str) -> float | None:
        """The share that is left over all layers."""
        shares = [share for share in self.shares(part) if share is not None]
        return sum(shares) / len(shares) if shares else None


@dataclass(frozen=True)
class WidthsInfo:
    """One run's widths, what they are compared with, and the sensitivity of the same model if it is known.

    Attributes:
        uniform: whether to draw what every layer would keep if all kept alike.
        agreement: part -> rank correlation of what a layer kept with how much the model needs it.
    """

    run: Profile
    others: list[Profile]
    uniform: bool
    sensitivity: SensitivityInfo | None
    agreement: dict[str, float]

    @property
    def parts(self) -> list[str]:
        """The parts worth a panel: key-value heads only where some are gone."""
        lost = any(share != 1 for share in self.run.shares("kv_heads"))
        return [part for part in PARTS if self.run.left.get(part) and (part != "kv_heads" or lost)]


def profile_of(name: str, record: Widths) -> Profile:
    """The widths a run left."""
    parts = [part for part in PARTS if record.dense[part]]
    left: dict[str, list[int | None]] = {part: [row[part] for row in record.layers] for part in parts}
    return Profile(
        name, left, {part: record.dense[part] for part in parts}, record.hidden, record.dense["hidden"]
    )


def published_profiles() -> dict[str, Profile]:
    """Table -> the widths the paper learned for LLaMA-7B, by the table's name."""
    tables = {name: published_table(name) for name in PUBLISHED}
    return {name: _published(table) for name, table in tables.items() if table is not None}


def _published(table: PublishedTable) -> Profile:
    def cells(name: str) -> list[int | None]:
        return [int(cell) if cell else None for cell in table.column(name)]

    model, percent = table.column("model")[0], table.column("sparsity_percent")[0]
    return Profile(
        f"{model}, {percent} % ({table.source.split(' (')[0]}, Table {table.number})",
        {"query_heads": cells("heads"), "ffn": cells("intermediate_size")},
        {part: LLAMA_7B[part] for part in ("query_heads", "ffn")},
        int(table.column("hidden_size")[0]),
        LLAMA_7B["hidden"],
    )


def widths_info(
    run: Profile, others: list[Profile], uniform: bool, sensitivity: SensitivityInfo | None
) -> WidthsInfo:
    """Put them together, and see whether the layers that kept more are those the model needs."""
    agreement = {}
    for part, (_, kind) in PARTS.items():
        curve = _curve(sensitivity, kind)
        pairs = [
            (share, curve[layer])
            for layer, share in enumerate(run.shares(part))
            if share is not None and math.isfinite(curve.get(layer, math.inf))
        ]
        if len(pairs) > 2 and all(len(set(values)) > 1 for values in zip(*pairs, strict=True)):
            agreement[part] = float(spearman(np.array(pairs, np.float32).T)[0, 1])
    return WidthsInfo(run, others, uniform, sensitivity, agreement)


def _curve(info: SensitivityInfo | None, kind: str) -> dict[int, float]:
    """The curve of this kind with the largest share removed."""
    curves = info.curves.items() if info else ()
    mine = [(ratio or 0.0, curve) for (what, ratio), curve in curves if what == kind]
    return max(mine, key=lambda pair: pair[0])[1] if mine else {}


def places(layers: int, of: int) -> list[float]:
    """Where the layers of a model with `layers` stand on the axis of one with `of`: at the same depth."""
    return [layer * (of - 1) / (layers - 1) if layers > 1 else 0.0 for layer in range(layers)]


def summary_html(info: WidthsInfo) -> Markup:
    """What is left in all, one row per model, and what there is to see."""
    text = [
        f"The layers that kept more {name} {_agreeing(info.agreement[part])}."
        for part, name in (("query_heads", "query heads"), ("ffn", "FFN width"))
        if part in info.agreement
    ]
    if any(other.layers != info.run.layers for other in info.others):
        text.append(
            f"Models with another number of layers are stretched to {info.run.layers}, at the same depth."
        )
    rows = [(profile, [_left(profile, part) for part in PARTS]) for profile in (info.run, *info.others)]
    titles = [title for title, _ in PARTS.values()]
    return render("widths_summary.html", titles=titles, rows=rows, text=" ".join(text))


def _agreeing(value: float) -> str:
    """What follows from a rank correlation, and the number: `are those the model needs more (…)`."""
    said = "are neither those the model needs more nor those it needs less"
    if abs(value) > CLEAR:
        said = f"are those the model needs {'more' if value > 0 else 'less'}"
    return f"{said} (rank correlation {words.signed(value)})"


def _left(profile: Profile, part: str) -> tuple[float | None, str]:
    """The share of a part that is left, and its mean width."""
    units = [n for n in profile.left.get(part, []) if n is not None]
    mean = f"{sum(units) / len(units):,.1f} of {profile.dense[part]:,}" if units else ""
    return profile.share(part), mean


def widths_figure(info: WidthsInfo) -> go.Figure:
    """One panel per part over the layers, the sensitivity below on the same axis."""
    import plotly.graph_objects as go

    figure = go.Figure()
    scan = info.sensitivity if info.sensitivity and info.sensitivity.curves else None
    panels = [*info.parts, *(["sensitivity"] if scan else [])]
    for number, panel in enumerate(panels):
        axis = f"y{number + 1 if number else ''}"
        if panel == "sensitivity" and scan:
            _add_sensitivity(figure, scan, axis)
        else:
            _add_part(figure, info, panel, axis, first=number == 0)
        top = 1 - number / len(panels)
        figure.layout[axis.replace("y", "yaxis")] = {
            **_axis(panel, scan), "domain": [top - 0.82 / len(panels), top],
        }  # fmt: skip
    every, last = 1 if info.run.layers <= 40 else 5, f"y{len(panels) if len(panels) > 1 else ''}"
    figure.update_layout(
        height=110 + 190 * len(panels), margin={"l": 84, "r": 24, "t": 40, "b": 50}, hovermode="x unified",
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"}, barmode="overlay",
        xaxis={"title": {"text": "Layer", "font": {"size": 13}}, "dtick": every,
               "range": [-0.6, info.run.layers - 0.4], "anchor": last},
        meta={"description": "What is left of every layer, and how fragile it was"},
    )  # fmt: skip
    return figure


def _axis(panel: str, scan: SensitivityInfo | None) -> dict[str, object]:
    title = {"font": {"size": 13}, "standoff": 8}
    if panel == "sensitivity" and scan:
        values = [ppl for curve in scan.curves.values() for ppl in curve.values()]
        return {
            **perplexity_axis(values, scan.wide),
            "title": {"text": "Perplexity,<br>pruned alone", **title},
        }
    return {"title": {"text": PARTS[panel][0], **title}, "tickformat": ".0%", "range": [0, 1.06]}


def _add_part(figure: go.Figure, info: WidthsInfo, part: str, axis: str, first: bool) -> None:
    shares = info.run.shares(part)
    counts = [f"{n:,} of {info.run.dense[part]:,}" for n in info.run.left[part] if n is not None]
    figure.add_bar(
        x=list(range(len(shares))), y=shares, yaxis=axis, name=info.run.name, showlegend=first,
        legendgroup="run", customdata=counts, hovertemplate="%{customdata} (%{y:.0%})",
        marker={"color": f"var(--pv-{COLOURS[PARTS[part][1]]})", "opacity": 0.75},
    )  # fmt: skip
    mean = info.run.share(part)
    if info.uniform and mean is not None:
        figure.add_scatter(
            x=[-0.5, len(shares) - 0.5], y=[mean, mean], yaxis=axis, mode="lines", name="Uniform",
            legendgroup="uniform", showlegend=first, hovertemplate="%{y:.1%}",
            line={"color": "var(--pv-text)", "width": 1.5, "dash": "dot"},
        )  # fmt: skip
    for index, other in enumerate(info.others):
        theirs = other.shares(part)
        written = ["" if n is None else f"{n:,} of {other.dense[part]:,}" for n in other.left.get(part, [])]
        figure.add_scatter(
            x=places(len(theirs), info.run.layers), y=theirs, yaxis=axis, name=other.name,
            legendgroup=other.name, showlegend=first, customdata=written, mode="lines+markers",
            hovertemplate="%{customdata} (%{y:.0%})", marker={"size": 5},
            line={"color": f"var(--pv-{MARKS[index % len(MARKS)]})", "dash": LINES[index % len(LINES)]},
        )  # fmt: skip


def _add_sensitivity(figure: go.Figure, scan: SensitivityInfo, axis: str) -> None:
    """The curve of every kind with the largest share removed, which widths are held against."""
    most = dict(sorted(scan.curves, key=lambda key: key[1] or 0.0))
    for kind, ratio in most.items():
        curve = scan.curves[kind, ratio]
        layers = [layer for layer in sorted(curve) if math.isfinite(curve[layer])]
        figure.add_scatter(
            x=layers, y=[curve[layer] for layer in layers], yaxis=axis, name=scan.title((kind, ratio)),
            customdata=[scan.written((kind, ratio, layer), curve[layer]) for layer in layers],
            mode="lines+markers", hovertemplate="%{customdata[0]} (%{customdata[1]})",
            marker={"size": 6, "symbol": SYMBOLS.get(kind, "circle")},
            line={"color": f"var(--pv-{COLOURS.get(kind, 'embedding')})", "width": 2},
        )  # fmt: skip


def table_html(info: WidthsInfo) -> Markup:
    """Every layer of the run as a table, and of all models as a CSV file."""
    parts = [part for part in PARTS if part in info.run.left]
    rows = zip(*(info.run.left[part] for part in parts), strict=True)
    titles = [PARTS[part][0] for part in parts]
    return render("widths.html", titles=titles, rows=rows, csv=table_csv(info))


def table_csv(info: WidthsInfo) -> str:
    """model, layer, part, left, dense: one line per layer and part, layers counted from 0."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "layer", "part", "left", "dense"])
    for profile in (info.run, *info.others):
        for part, left in profile.left.items():
            writer.writerows([profile.name, i, part, n, profile.dense[part]] for i, n in enumerate(left))
    return out.getvalue()
