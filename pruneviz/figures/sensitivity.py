"""Perplexity when only one layer's attention or FFN is pruned, over layers."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from core.artifacts import Sensitivity
from pruneviz import words

if TYPE_CHECKING:
    import plotly.graph_objects as go

KINDS = {"attention": "Attention pruned alone", "ffn": "FFN pruned alone"}


@dataclass(frozen=True)
class SensitivityInfo:
    """Curves over layers.

    Attributes:
        curves: kind -> layer -> perplexity; infinite where the model broke.
        baseline: perplexity with nothing pruned; None while it is not known.
        ratio: share of one layer's units that went for one point, None while not known.
        text, window, tokens, criterion: how it was measured; empty or 0 while not known.
    """

    curves: dict[str, dict[int, float]]
    baseline: float | None = None
    ratio: float | None = None
    text: str = ""
    window: int = 0
    tokens: int = 0
    criterion: str = ""

    @property
    def layers(self) -> list[int]:
        """Layers with at least one point, in order."""
        return sorted({layer for curve in self.curves.values() for layer in curve})

    @property
    def worst(self) -> tuple[str, int, float] | None:
        """Kind, layer and perplexity of the point that hurts most."""
        points = [(kind, layer, ppl) for kind, curve in self.curves.items() for layer, ppl in curve.items()]
        return max(points, key=lambda point: point[2]) if points else None

    @property
    def wide(self) -> bool:
        """Whether the points span so much that a logarithmic axis reads better."""
        finite = [ppl for curve in self.curves.values() for ppl in curve.values() if math.isfinite(ppl)]
        return bool(finite) and max(finite) > 10 * min(finite)


def sensitivity_info(record: Sensitivity) -> SensitivityInfo:
    """The curves of a finished scan."""
    curves: dict[str, dict[int, float]] = {}
    for point in record.points:
        curves.setdefault(str(point["kind"]), {})[int(point["layer"])] = _number(point["ppl"])
    ratios = {float(point["ratio"]) for point in record.points}
    return SensitivityInfo(
        curves, record.baseline_ppl, ratios.pop() if len(ratios) == 1 else None,
        record.text, record.window, record.tokens, record.criterion,
    )  # fmt: skip


def live_info(series: dict[str, list[tuple[float, float]]]) -> SensitivityInfo:
    """The curves so far, from the metric events of a scan that is still going."""
    curves = {
        kind: {int(step): value for step, value in series[f"sensitivity.{kind}"]}
        for kind in KINDS
        if series.get(f"sensitivity.{kind}")
    }
    baseline = series.get("sensitivity.baseline")
    return SensitivityInfo(curves, baseline[-1][1] if baseline else None)


def _number(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else float(value)


def method_html(info: SensitivityInfo) -> str:
    """How it was measured, and the one thing to see."""
    if not info.text:
        return ""
    share = words.percent(info.ratio, 0) if info.ratio is not None else "a part"
    parts = [
        f"Each point removes {share} of one layer’s units, chosen by {escape(info.criterion)}, and leaves "
        f"the rest of the model whole. Perplexity on the text “{escape(info.text)}” in windows of "
        f"{info.window} tokens, {info.tokens:,} tokens in all; "
        f"{words.perplexity(info.baseline)} with nothing removed."
    ]
    if info.worst:
        kind, layer, ppl = info.worst
        parts.append(
            f"The most fragile is the {_short(kind)} of layer {layer}: "
            f"{words.perplexity(ppl)} ({words.difference(info.baseline, ppl)})."
        )
    return f'<p class="pv-readout">{" ".join(parts)}</p>'


def sensitivity_figure(info: SensitivityInfo, log: bool = False) -> go.Figure:
    """One line per kind, the baseline dotted."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for kind, curve in info.curves.items():
        layers = [layer for layer in sorted(curve) if math.isfinite(curve[layer])]
        change = [words.difference(info.baseline, curve[layer]) for layer in layers]
        figure.add_scatter(
            x=layers, y=[curve[layer] for layer in layers], customdata=change, name=KINDS.get(kind, kind),
            mode="lines+markers", line={"color": f"var(--pv-{kind})", "width": 2},
            marker={"size": 7, "symbol": "circle" if kind == "attention" else "diamond"},
            hovertemplate="layer %{x}: %{y:.4g} (%{customdata})",
        )  # fmt: skip
    if info.baseline is not None and math.isfinite(info.baseline):
        figure.add_hline(
            info.baseline, line={"dash": "dot", "width": 1.5, "color": "var(--pv-quiet)"},
            annotation={"text": f"nothing pruned: {words.perplexity(info.baseline)}", "font": {"size": 12}},
            annotation_position="bottom right",
        )  # fmt: skip
    every = 1 if len(info.layers) <= 40 else 5
    title: dict[str, object] = {"font": {"size": 13}}
    figure.update_layout(
        height=430, margin={"l": 64, "r": 24, "t": 52, "b": 66}, hovermode="x unified",
        legend={"orientation": "h", "x": 0, "y": 1.04, "yanchor": "bottom"},
        xaxis={"title": title | {"text": "Layer"}, "dtick": every, "range": _range(info)},
        yaxis={"title": title | {"text": "Perplexity"}, "type": "log" if log else "linear"},
        meta={"description": "Perplexity over layers when one layer's attention or FFN is pruned alone"},
    )  # fmt: skip
    return figure


def _range(info: SensitivityInfo) -> list[float]:
    """Half a layer of room at both ends."""
    return [info.layers[0] - 0.5, info.layers[-1] + 0.5] if info.layers else [0.0, 1.0]


def table_html(info: SensitivityInfo) -> str:
    """All points as a table, and the same as a CSV file."""
    kinds = list(info.curves)
    head = "".join(
        f'<th class="num">{KINDS.get(kind, escape(kind))}</th><th class="num">Change</th>' for kind in kinds
    )
    rows = []
    for layer in info.layers:
        values = [info.curves[kind].get(layer) for kind in kinds]
        cells = "".join(
            f'<td class="num">{words.perplexity(ppl)}</td>'
            f'<td class="num">{words.difference(info.baseline, ppl)}</td>'
            for ppl in values
        )
        rows.append(f'<tr><th scope="row">{layer}</th>{cells}</tr>')
    link = (
        '<a class="pv-csv" download="sensitivity.csv" '
        f'href="data:text/csv;charset=utf-8,{quote(table_csv(info))}">'
        "Download as CSV</a>"
    )
    return (
        f'<details class="pv-points"><summary>All points as a table</summary><div class="pv-scroll">'
        f'<table class="pv-table"><thead><tr><th>Layer</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        f"</table></div></details>{link}"
    )


def table_csv(info: SensitivityInfo) -> str:
    """layer, kind, ratio, ppl, baseline_ppl: one line per point."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["layer", "kind", "ratio", "ppl", "baseline_ppl"])
    for kind, curve in info.curves.items():
        writer.writerows([layer, kind, info.ratio, curve[layer], info.baseline] for layer in sorted(curve))
    return out.getvalue()


def _short(kind: str) -> str:
    return {"attention": "attention", "ffn": "FFN"}.get(kind, kind)
