"""Perplexity over size for every point of a sweep, and which points are worth having."""

from __future__ import annotations

import csv
import io
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from core.results import words
from core.results.quantities import QUANTITIES
from core.results.sweep import Point, Sweep
from pruneviz.figures.axes import add_baseline, perplexity_axis
from pruneviz.figures.render import render
from pruneviz.figures.states import empty_html, paragraph_html

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = ("attention", "ffn", "residual", "good", "removed", "embedding", "warn", "bad", "idle")
SYMBOLS = {"circle": "●", "diamond": "◆", "square": "■", "cross": "✚", "triangle-up": "▲", "x": "✖"}
#: What points of one line share, and the words for it.
NAMES: dict[str, str] = {
    "method": "Method", "scope": "Scope", "reconstruct": "Refit", "drop": "Blocks gone", "seed": "Seed",
    "samples": "Windows",
}  # fmt: skip
COLUMNS = ("method", "scope", "reconstruct", "drop", "seed", "samples", "target", "sparsity",
           "sparsity_total", "params", "macs", "ppl", "ppl_stderr", "change_stderr", "kl", "kl_stderr",
           "seconds", "error")  # fmt: skip
#: The columns that say what the perplexity of a row is of.
MEASURED_ON = ("text", "protocol", "window", "tokens", "calibration")


@dataclass(frozen=True)
class SweepInfo:
    """A sweep, sorted for people.

    Attributes:
        sweep: with the perplexities of the text that is drawn; texts: the same for every text, in order.
        series: points that differ in size alone, by what they share, each largest first.
        front: keys of the points that no other one beats.
        varied: which axes have more than one value; the others need no word per point.
    """

    sweep: Sweep
    series: dict[tuple[Any, ...], list[Point]]
    front: tuple[tuple[Any, ...], ...]
    varied: tuple[str, ...]
    texts: tuple[Sweep, ...]

    @property
    def ways(self) -> list[tuple[str, str, str]]:
        """How targets were spread, what stays refitted, what went whole; each way has a sign of its own."""
        return list(dict.fromkeys(_way_of(point) for point in self.sweep.points))

    @property
    def measured(self) -> list[Point]:
        """Points with a perplexity, largest first."""
        points = [point for point in self.sweep.points if point.ppl is not None]
        return sorted(points, key=lambda point: (-(point.params or 0), point.ppl or 0.0))

    @property
    def refused(self) -> list[Point]:
        """Points that say why there is no number."""
        return [point for point in self.sweep.points if point.error]

    @property
    def wide(self) -> bool:
        """Whether perplexities span so much that a logarithmic axis reads better."""
        return any((point.ppl or 0.0) > 8 * self.sweep.ppl for point in self.measured)


def sweep_info(sweep: Sweep, text: str | None = None) -> SweepInfo:
    """Collect what the Sweep tab shows.

    Args:
        text: the name of the text whose perplexities are drawn, if not the first.
    """
    texts = tuple(sweep.on(number) for number in range(len(sweep.texts)))
    sweep = next((each for each in texts if each.text == text), texts[0])
    series: dict[tuple[Any, ...], list[Point]] = {}
    for point in sweep.points:
        if point.ppl is not None:
            series.setdefault(tuple(getattr(point, axis) for axis in NAMES), []).append(point)
    for points in series.values():
        points.sort(key=lambda point: -(point.params or 0))
    varied = [a for a in NAMES if len({getattr(point, a) for point in sweep.points}) > 1]
    front = tuple(point.key for point in sweep.front())
    return SweepInfo(sweep, series, front, tuple(varied), texts)


def _way_of(point: Point) -> tuple[str, str, str]:
    return point.scope, point.reconstruct, point.drop


def _way(scope: str, reconstruct: str, drop: str) -> str:
    return ", ".join([scope, *_beside(reconstruct, drop)])


def _beside(reconstruct: str, drop: str) -> list[str]:
    """What is done beside ranking units, in words."""
    refit = [] if reconstruct == "none" else [f"{reconstruct} refit"]
    return [*refit, f"without {' and '.join(drop.split(','))}"] if drop else refit


def label(point: Point) -> str:
    """One point in words, e.g. `wanda · 20 % · local · seed 0 · 16 windows`."""
    beside = _beside(point.reconstruct, point.drop)
    parts = [point.method, words.percent(point.target, 0), point.scope, *beside]
    return " · ".join([*parts, f"seed {point.seed}", f"{point.samples} windows"])


def sweep_figure(info: SweepInfo, log: bool) -> go.Figure:
    """A line per series, coloured by method; the Pareto front dashed. `customdata[0]` names the point."""
    import plotly.graph_objects as go

    figure, sweep = go.Figure(), info.sweep
    methods = list(dict.fromkeys(point.method for point in sweep.points))
    seen: set[str] = set()
    for points in info.series.values():
        first = points[0]
        colour = f"var(--pv-{COLOURS[methods.index(first.method) % len(COLOURS)]})"
        symbol = list(SYMBOLS)[info.ways.index(_way_of(first)) % len(SYMBOLS)]
        figure.add_scatter(
            x=[_left(sweep, point) for point in points], y=[point.ppl for point in points],
            customdata=[[label(point), _hover(info, point)] for point in points], name=first.method,
            legendgroup=first.method, showlegend=first.method not in seen, mode="lines+markers",
            line={"color": colour, "width": 1}, marker={"size": 9, "symbol": symbol},
            hovertemplate="%{customdata[1]}<extra></extra>", error_y=_whiskers(points, colour),
        )  # fmt: skip
        seen.add(first.method)
    _add_front(figure, info)
    add_baseline(figure, sweep.ppl, log, "left")
    title: dict[str, object] = {"font": {"size": 13}}
    figure.update_layout(
        height=500, margin={"l": 64, "r": 20, "t": 56, "b": 56}, hovermode="closest",
        legend={"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom"},
        xaxis={"title": title | {"text": "Parameters left, % of the dense model"}, "autorange": "reversed"},
        yaxis=perplexity_axis([sweep.ppl, *(point.ppl for point in info.measured)], log),
        meta={"description": "Perplexity over parameters left, a line per method, with the Pareto front"},
    )  # fmt: skip
    return figure


def _add_front(figure: go.Figure, info: SweepInfo) -> None:
    best = [info.sweep.done[key] for key in info.front]
    figure.add_scatter(
        x=[_left(info.sweep, point) for point in best], y=[point.ppl for point in best],
        customdata=[[label(point), _hover(info, point)] for point in best], name="Pareto front",
        mode="lines+markers", line={"color": "var(--pv-text)", "width": 1.5, "dash": "dash"},
        marker={"size": 15, "symbol": "circle-open", "line": {"width": 1.5}},
        hovertemplate="%{customdata[1]}<extra></extra>",
    )  # fmt: skip


def _whiskers(points: list[Point], colour: str) -> dict[str, Any] | None:
    """One standard error up and down; None where no point has one."""
    errors = [point.ppl_stderr for point in points]
    if all(error is None for error in errors):
        return None
    return {"type": "data", "array": errors, "thickness": 1, "width": 3, "color": colour}


def _left(sweep: Sweep, point: Point) -> float:
    return 100.0 * (point.params or 0) / sweep.params


def _change(sweep: Sweep, point: Point) -> str:
    return words.change(sweep.ppl, point.ppl, sweep.change(point))


def _hover(info: SweepInfo, point: Point) -> str:
    lines = [
        f"<b>{escape(label(point))}</b>",
        f"perplexity {words.perplexity(point.ppl, point.ppl_stderr)} ({_change(info.sweep, point)})",
        f"{words.count(point.params)} parameters left, {words.count(point.macs)} MACs per token",
        words.sparsity(point.sparsity, point.sparsity_total),
        f"measured in {words.duration(point.seconds) or '0 s'}",
    ]
    return "<br>".join([*lines, "on the Pareto front"] if point.key in info.front else lines)


def _read_on(sweep: Sweep) -> str:
    return words.read_on(sweep.text, window=sweep.window, tokens=sweep.tokens, protocol=sweep.protocol)


def about_html(info: SweepInfo) -> Markup:
    """How it was measured, and the best point in one sentence."""
    sweep = info.sweep
    parts = [
        f"{len(sweep.points)} of {sweep.planned} points. Perplexity on {_read_on(sweep)}; "
        f"{words.perplexity(sweep.ppl, sweep.ppl_stderr)} with nothing removed. Units scored on "
        f"“{sweep.calibration}”."
    ]
    if sweep.ppl_stderr is not None:
        parts.append(
            f"± and bars: one standard error over {sweep.windows:,} windows; whether a change is within "
            "noise is judged window by window."
        )
    if len(info.ways) > 1:
        signs = zip(itertools.cycle(SYMBOLS.values()), info.ways, strict=False)
        parts.append(f"Signs: {', '.join(f'{sign} {_way(*way)}' for sign, way in signs)}.")
    if info.refused:
        parts.append(f"{len(info.refused)} could not be pruned so far; the table says why.")
    return paragraph_html(" ".join(parts), "readout")


def unmeasured_html(info: SweepInfo, live: bool) -> Markup:
    """What stands in the chart's place while no point has a perplexity; empty once one has.

    Args:
        live: whether the sweep goes on.
    """
    if info.measured:
        return Markup()
    if info.refused:
        so_far = " so far" if live else ""
        return empty_html("No point could be measured", f"The table says why of each that was tried{so_far}.")
    if live:
        text = f"The dense model is. Points appear here one by one, {info.sweep.planned:,} in all."
        return empty_html("No point measured yet", text)
    return empty_html("No point was measured", "The sweep ended before its first one; above stands why.")


def table_html(info: SweepInfo) -> Markup:
    """All points as a table, largest first, with what their numbers depend on; and the same as a CSV file.

    Nothing where there is no point yet.
    """
    if not info.sweep.points:
        return Markup()
    always = ("method", "seed", "samples")
    axes = [axis for axis in NAMES if axis in info.varied or axis in always]
    rows = [_row(info, point, axes) for point in [*info.measured, *info.refused]]
    title, texts = QUANTITIES["ppl"].title, words.short_texts([each.text for each in info.texts])
    titles = [(title, text if len(texts) > 1 else "") for text in texts]
    notes = [f"{title} on {_read_on(each)}." for each in info.texts]
    return render(
        "sweep.html", axes=[NAMES[axis] for axis in axes], titles=titles, rows=rows, csv=table_csv(info),
        notes=[*notes, f"Calibrated on {info.sweep.calibration}; windows and seed stand in each row."],
    )  # fmt: skip


def _row(info: SweepInfo, point: Point, axes: list[str]) -> dict[str, object]:
    """What the table says of a point; of one that could not be measured what was asked for, and why."""
    measured = point.ppl is not None
    return {
        "shared": [words.DASH if value == "" else value for value in (getattr(point, axis) for axis in axes)],
        "removed": words.percent(point.sparsity_total) if measured else words.percent(point.target, 0),
        "measured": [_cells(each, point) for each in info.texts],
        "error": "" if measured else point.error or words.DASH,
    }


def _cells(sweep: Sweep, point: Point) -> tuple[str, str, bool]:
    """A point's perplexity on one text, how it differs from the dense model, and if no other beats it."""
    of_text = sweep.done[point.key]
    perplexity = words.perplexity(of_text.ppl, of_text.ppl_stderr)
    change = _change(sweep, of_text)
    if of_text.kl is not None:
        change = ", ".join(filter(None, [change, words.divergence(of_text.kl, of_text.kl_stderr)]))
    return perplexity, change, of_text in sweep.front()


def table_csv(info: SweepInfo) -> str:
    """Every column of every point, a row per text, and whether it is on that text's Pareto front."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, *MEASURED_ON, "pareto"])
    for sweep in info.texts:
        front, on = {point.key for point in sweep.front()}, [getattr(sweep, name) for name in MEASURED_ON]
        for point in sweep.points:
            writer.writerow([*(getattr(point, name) for name in COLUMNS), *on, point.key in front])
    return out.getvalue()
