"""Perplexity when only one layer's attention or FFN is pruned, over layers."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markupsafe import Markup

from core.results import words
from core.results.noise import Difference, kept_difference
from core.results.sensitivity import Sensitivity
from core.spec.evaluate import WORKBENCH
from pruneviz.figures.axes import add_baseline, perplexity_axis
from pruneviz.figures.render import render
from pruneviz.figures.states import paragraph_html

if TYPE_CHECKING:
    import plotly.graph_objects as go

KINDS = {"attention": "Attention", "ffn": "FFN", "both": "Both"}
COLOURS = {"attention": "attention", "ffn": "ffn", "both": "residual"}
SYMBOLS = {"attention": "circle", "ffn": "diamond", "both": "square"}
DASHES = ("solid", "dash", "dot", "dashdot")
#: What was pruned and which share of it was asked for; None where an older scan does not say.
Curve = tuple[str, float | None]
#: Kind, share asked for or number of the head, layer: one point of a scan.
Place = tuple[str, float | None, int]


@dataclass(frozen=True)
class SensitivityInfo:
    """Curves over layers, and what single heads are worth.

    Attributes:
        curves: (kind, share asked for) -> layer -> perplexity; infinite where the model broke.
        heads: (layer, head) -> perplexity without this head alone.
        baseline: perplexity with nothing pruned; None while it is not known.
        text, window, tokens, protocol, criterion: how it was measured; empty or 0 while not known.
        stderrs: of perplexities, and `baseline_stderr` of the baseline; changes: from the baseline, with
            their noise. Neither is known while a scan is going, nor of older ones.
    """

    curves: dict[Curve, dict[int, float]]
    baseline: float | None = None
    text: str = ""
    window: int = 0
    tokens: int = 0
    criterion: str = ""
    heads: dict[tuple[int, int], float] = field(default_factory=dict)
    baseline_stderr: float | None = None
    stderrs: dict[Place, float] = field(default_factory=dict)
    changes: dict[Place, Difference] = field(default_factory=dict)
    protocol: str = WORKBENCH

    @property
    def layers(self) -> list[int]:
        """Layers with at least one point of a curve, in order."""
        return sorted({layer for curve in self.curves.values() for layer in curve})

    @property
    def ratios(self) -> list[float]:
        """The shares asked for, in order."""
        return sorted({ratio for _, ratio in self.curves if ratio is not None})

    @property
    def worst(self) -> tuple[Place, float] | None:
        """The point of a curve that hurts most, and its perplexity."""
        points = [((*key, n), ppl) for key, curve in self.curves.items() for n, ppl in curve.items()]
        return max(points, key=lambda point: point[1]) if points else None

    @property
    def wide(self) -> bool:
        """Whether the points span so much that a logarithmic axis reads better."""
        finite = [ppl for curve in self.curves.values() for ppl in curve.values() if math.isfinite(ppl)]
        return bool(finite) and max(finite) > 10 * min(finite)

    def written(self, place: Place, ppl: float | None) -> tuple[str, str]:
        """A perplexity with its standard error, and its change from the baseline, as far as known."""
        change = words.change(self.baseline, ppl, self.changes.get(place, Difference()))
        return words.perplexity(ppl, self.stderrs.get(place)), change

    def title(self, curve: Curve) -> str:
        """What a curve is, e.g. `FFN pruned alone`, `Both, 25 % pruned`."""
        kind, ratio = KINDS.get(curve[0], curve[0]), curve[1]
        if len(self.ratios) < 2 or ratio is None:
            return f"{kind} pruned{' at once' if curve[0] == 'both' else ' alone'}"
        return f"{kind}, {words.percent(ratio, 0)} pruned"


def sensitivity_info(record: Sensitivity) -> SensitivityInfo:
    """The curves of a finished scan."""
    curves: dict[Curve, dict[int, float]] = {}
    heads: dict[tuple[int, int], float] = {}
    stderrs: dict[Place, float] = {}
    changes: dict[Place, Difference] = {}
    for point in record.points:
        layer, ppl, kind = int(point["layer"]), _number(point["ppl"]), str(point["kind"])
        what = point["unit"] if kind == "head" else point.get("target", point.get("ratio"))
        if kind == "head":
            heads[layer, int(point["unit"])] = ppl
        else:
            curves.setdefault((kind, what), {})[layer] = ppl
        if point.get("ppl_stderr") is not None:
            stderrs[kind, what, layer] = point["ppl_stderr"]
        changes[kind, what, layer] = kept_difference(
            record.baseline_ppl, ppl, point.get("change_stderr"), record.windows
        )
    return SensitivityInfo(
        curves, record.baseline_ppl, record.text, record.window, record.tokens, record.criterion, heads,
        record.baseline_stderr, stderrs, changes, record.protocol,
    )  # fmt: skip


def live_info(series: dict[str, list[tuple[float, float]]]) -> SensitivityInfo:
    """The curves so far, from the metric events of a scan that is still going."""
    curves: dict[Curve, dict[int, float]] = {}
    heads: dict[tuple[int, int], float] = {}
    for name, points in series.items():
        scan, _, rest = name.partition(".")
        kind, _, which = rest.partition(".")
        if scan != "sensitivity" or not which:
            continue
        for step, value in points:
            if kind == "head":
                heads[int(step), int(which)] = value
            else:
                curves.setdefault((kind, float(which)), {})[int(step)] = value
    baseline = series.get("sensitivity.baseline")
    return SensitivityInfo(curves, baseline[-1][1] if baseline else None, heads=heads)


def _number(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else float(value)


def method_html(info: SensitivityInfo) -> Markup:
    """How it was measured, and the one thing to see."""
    if not info.text:
        return Markup()
    shares = " or ".join(words.percent(ratio, 0) for ratio in info.ratios) or "one head"
    parts = [
        f"Each point removes {shares} of one layer’s units, chosen by {info.criterion}, and leaves "
        f"the rest of the model whole. Perplexity on "
        f"{words.read_on(info.text, window=info.window, tokens=info.tokens, protocol=info.protocol)}; "
        f"{words.perplexity(info.baseline, info.baseline_stderr)} with nothing removed. No other text is "
        "measured here: a run measures a second one, of another domain."
    ]
    if info.baseline_stderr is not None:
        parts.append(
            f"± one standard error over {info.tokens // info.window:,} windows; whether a change is within "
            "noise is judged window by window."
        )
    if info.worst:
        place, ppl = info.worst
        ppl_text, change = info.written(place, ppl)
        where = f"{_short(place[0])} of layer {place[2]}"
        parts.append(f"The most fragile is the {where}: {ppl_text} ({change}).")
    return paragraph_html(" ".join(parts), "readout")


def sensitivity_figure(info: SensitivityInfo, log: bool = False) -> go.Figure:
    """One line per kind, the baseline dotted."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for key, curve in info.curves.items():
        kind, ratio = key
        layers = [layer for layer in sorted(curve) if math.isfinite(curve[layer])]
        said = [info.written((kind, ratio, layer), curve[layer]) for layer in layers]
        dash = DASHES[info.ratios.index(ratio) % len(DASHES)] if ratio in info.ratios else "solid"
        line = {"color": f"var(--pv-{COLOURS.get(kind, 'embedding')})", "width": 2, "dash": dash}
        figure.add_scatter(
            x=layers, y=[curve[layer] for layer in layers], customdata=said, name=info.title(key),
            mode="lines+markers", line=line, marker={"size": 7, "symbol": SYMBOLS.get(kind, "circle")},
            hovertemplate="layer %{x}: %{customdata[0]} (%{customdata[1]})",
        )  # fmt: skip
    add_baseline(figure, info.baseline, log, "right")
    every = 1 if len(info.layers) <= 40 else 5
    title: dict[str, object] = {"font": {"size": 13}}
    figure.update_layout(
        height=430, margin={"l": 64, "r": 24, "t": 52, "b": 66}, hovermode="x unified",
        legend={"orientation": "h", "x": 0, "y": 1.04, "yanchor": "bottom"},
        xaxis={"title": title | {"text": "Layer"}, "dtick": every, "range": _range(info)},
        yaxis=perplexity_axis([info.baseline, *(y for c in info.curves.values() for y in c.values())], log),
        meta={"description": "Perplexity over layers when one layer's attention or FFN is pruned alone"},
    )  # fmt: skip
    return figure


def _range(info: SensitivityInfo) -> list[float]:
    """Half a layer of room at both ends."""
    return [info.layers[0] - 0.5, info.layers[-1] + 0.5] if info.layers else [0.0, 1.0]


def heads_figure(info: SensitivityInfo) -> go.Figure:
    """Layers x heads: how much worse the model gets without one head alone."""
    import plotly.graph_objects as go

    layers = sorted({layer for layer, _ in info.heads})
    count = 1 + max((head for _, head in info.heads), default=0)
    ppl = [[info.heads.get((layer, head)) for head in range(count)] for layer in layers]
    base = info.baseline or 1.0
    shown = [[y / base if y is not None and math.isfinite(y) else None for y in row] for row in ppl]
    change = [
        [info.written(("head", head, layer), info.heads.get((layer, head))) for head in range(count)]
        for layer in layers
    ]
    figure = go.Figure(
        go.Heatmap(
            z=shown, y=layers, x=list(range(count)), customdata=change, xgap=1, ygap=1, zmid=1,
            colorscale=[[0, "var(--pv-accent)"], [0.5, "var(--pv-sunken)"], [1, "var(--pv-removed)"]],
            colorbar={"title": {"text": "× unpruned", "font": {"size": 11}},
                      "thickness": 12, "outlinewidth": 0},
            hovertemplate="layer %{y}, head %{x}: %{customdata[0]} (%{customdata[1]})<extra></extra>",
        )
    )  # fmt: skip
    title: dict[str, object] = {"font": {"size": 13}}
    every = 1 if count <= 40 else 4
    figure.update_layout(
        height=110 + 15 * max(6, len(layers)), margin={"l": 56, "r": 16, "t": 14, "b": 50},
        xaxis={"title": title | {"text": "Head removed alone"}, "showgrid": False, "dtick": every},
        yaxis={"title": title | {"text": "Layer"}, "autorange": "reversed", "showgrid": False},
        meta={"description": "Perplexity without one attention head, for every head of every layer"},
    )  # fmt: skip
    return figure


def table_html(info: SensitivityInfo) -> Markup:
    """All points of the curves as a table, and every point as a CSV file."""
    rows = [
        (layer, [info.written((*key, layer), curve.get(layer)) for key, curve in info.curves.items()])
        for layer in info.layers
    ]
    titles = [info.title(curve) for curve in info.curves]
    return render("sensitivity.html", titles=titles, rows=rows, csv=table_csv(info))


def table_csv(info: SensitivityInfo) -> str:
    """One line per point; a head alone is of kind `head 3`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["layer", "kind", "ratio", "ppl", "baseline_ppl", "ppl_stderr", "change_stderr"])
    for (kind, ratio), curve in info.curves.items():
        for layer in sorted(curve):
            row = _csv_row(info, (kind, ratio, layer), curve[layer])
            writer.writerow([layer, kind, ratio, *row])
    for (layer, head), ppl in sorted(info.heads.items()):
        writer.writerow([layer, f"head {head}", "", *_csv_row(info, ("head", head, layer), ppl)])
    return out.getvalue()


def _csv_row(info: SensitivityInfo, place: Place, ppl: float) -> list[float | None]:
    noise = info.changes.get(place, Difference()).noise
    return [ppl, info.baseline, info.stderrs.get(place), noise]


def _short(kind: str) -> str:
    return {"attention": "attention", "ffn": "FFN", "both": "attention and FFN together"}.get(kind, kind)
