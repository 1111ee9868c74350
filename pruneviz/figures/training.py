"""A training as it goes: sparsity, who teaches, losses, perplexity if cut now, multipliers and cost."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from markupsafe import Markup

from core.results import words
from core.runs.events import Event, metric_series
from pruneviz.data.published import published_table
from pruneviz.figures.axes import POINTS, mode, perplexity_axis, thinned
from pruneviz.figures.render import render

if TYPE_CHECKING:
    import plotly.graph_objects as go

PREFIX = "train."
#: The perplexity of the model as it would be cut now; with a text's name after a point, on that text.
CUT = "ppl_cut"
#: Colour and dash of the texts that are followed, in turns.
WATCHED = (("accent", "dash"), ("embedding", "dot"), ("ffn", "dashdot"))
#: Metric -> (title, panel, colour, dash).
CURVES = {
    "target": ("Target", "sparsity", "quiet", "dot"),
    "expected": ("Expected", "sparsity", "accent", "solid"),
    "actual": ("If all that is rather closed went now", "sparsity", "residual", "dash"),
    "kl": ("Divergence from the teacher", "loss", "ffn", "solid"),
    "next_token_loss": ("Next-token loss", "loss", "ffn", "solid"),
    "layer_loss": ("Layer loss", "loss", "residual", "dash"),
    CUT: ("As it would be cut now, on windows kept apart", "ppl", "removed", "solid"),
    "lambda_1": ("λ₁, of what is missing", "multipliers", "attention", "solid"),
    "lambda_2": ("λ₂, of its square", "multipliers", "embedding", "dash"),
}
#: Panel -> (title, from, to) as shares of the height; the strip of teachers stands below the sparsity.
PANELS = {
    "sparsity": ("Sparsity", 0.75, 1.0),
    "teacher": ("Teacher", 0.645, 0.68),
    "loss": ("Loss", 0.44, 0.575),
    "ppl": ("Perplexity", 0.235, 0.37),
    "multipliers": ("Push to the target", 0.0, 0.165),
}
#: What the paper's table says of many teachers and of distillation -> what its models had.
PAPERS_TEACHERS = {("yes", "yes"): "progressive", ("no", "yes"): "one teacher"}
DENSE = "the dense model"
NO_TEACHER = "nobody: learned from the text alone"


@dataclass(frozen=True)
class Span:
    """Steps `first` to `last` that one teacher taught; `sparsity` is its own, 0 the dense model."""

    first: float
    last: float
    sparsity: float

    @property
    def name(self) -> str:
        """`the dense model`, or `8.0 % sparse`: as long, so that nothing moves when it changes."""
        return f"{words.percent(self.sparsity)} sparse" if self.sparsity else DENSE


@dataclass(frozen=True)
class TrainingInfo:
    """A training so far.

    Attributes:
        curves: metric -> its steps and values, thinned; the last point is always there.
        teachers: who taught when, in order, thinned where there were very many; empty where nobody does.
        steps: how many steps there will be, 0 if not known; done: the last one that was told.
        skipped: steps whose loss was not finite.
        seconds_per_step: the median; memory_gib: the most that the run's own process held, one of `processes`
            that train together.
    """

    curves: dict[str, tuple[list[float], list[float]]]
    teachers: list[Span]
    steps: int
    done: int
    skipped: int
    seconds_per_step: float | None
    memory_gib: float | None
    processes: int = 1

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw yet."""
        return not self.curves

    def now(self, name: str) -> float | None:
        """The last value of a metric, or None."""
        return self.curves[name][1][-1] if name in self.curves else None


def training_info(events: list[Event], steps: int = 0, processes: int = 1) -> TrainingInfo:
    """What the events say. After a resume, the steps told last count."""
    series = {
        name.removeprefix(PREFIX): sorted(points)
        for name, points in metric_series(events).items()
        if name.startswith(PREFIX)
    }
    seconds = [value for _, value in series.get("seconds_per_step", [])]
    held = [value for _, value in series.get("memory_gib", [])]
    skipped = series.get("skipped", [])
    return TrainingInfo(
        {name: _curve(series[name]) for name in (*CURVES, *_followed(series)) if series.get(name)},
        _spans(series.get("teacher", [])),
        steps,
        int(max((step for step, _ in series.get("expected", [])), default=0)),
        int(skipped[-1][1]) if skipped else 0,
        median(seconds) if seconds else None,
        max(held, default=None),
        processes,
    )


def _followed(series: Iterable[str]) -> list[str]:
    """The curves of texts that nobody trains on, in the order told."""
    return [name for name in series if name.startswith(f"{CUT}.")]


def _curve(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    drawn = thinned(points)
    return [step for step, _ in drawn], [value for _, value in drawn]


def _spans(points: list[tuple[float, float]]) -> list[Span]:
    spans: list[Span] = []
    for step, sparsity in points:
        if spans and spans[-1].sparsity == sparsity:
            spans[-1] = Span(spans[-1].first, step, sparsity)
        else:
            spans.append(Span(step, step, sparsity))
    return spans if len(spans) <= POINTS + 1 else _spans(thinned(points))


def training_html(info: TrainingInfo) -> Markup:
    """Where the training is, in numbers."""
    facts = [
        ("Step", f"{info.done:,} of {info.steps:,}" if info.steps else f"{info.done:,}"),
        ("Expected sparsity", words.percent(info.now("expected"))),
        ("Wanted now", words.percent(info.now("target"))),
        ("Teacher now", info.teachers[-1].name if info.teachers else NO_TEACHER),
        ("Perplexity if cut now", words.perplexity(info.now(CUT))),
        *((f"… on {_text(name)}", words.perplexity(info.now(name))) for name in _followed(info.curves)),
        ("Time per step", seconds(info.seconds_per_step)),
        (f"Memory{of_one(info)}, at most", memory(info.memory_gib)),
        ("Steps skipped", f"{info.skipped:,}"),
    ]
    return render("training.html", pairs=facts, skipped=info.skipped)


def _text(name: str) -> str:
    return words.short_text(name.removeprefix(f"{CUT}."))


def of_one(info: TrainingInfo) -> str:
    """Whose memory it is, where several processes hold some."""
    return f" of one of {info.processes} processes" if info.processes > 1 else ""


def seconds(value: float | None) -> str:
    """`4.21 s`, `0.035 s`."""
    return words.DASH if value is None else f"{value:.3g} s"


def memory(value: float | None) -> str:
    """`1.41 GiB`."""
    return words.DASH if value is None else f"{value:.3g} GiB"


def cost_html(info: TrainingInfo) -> Markup:
    """What a step costs, beside what the paper's own cost: other model, other machine."""
    table = published_table("nuteprune_table_09")
    if info.seconds_per_step is None or table is None:
        return Markup()
    return render(
        "training_cost.html", table=table, teachers=PAPERS_TEACHERS,
        whose=f", memory{of_one(info)}" if info.processes > 1 else "",
        memory=memory(info.memory_gib), seconds=seconds(info.seconds_per_step),
    )  # fmt: skip


def training_figure(info: TrainingInfo) -> go.Figure:
    """All panels over the same steps."""
    import plotly.graph_objects as go

    figure, axes = go.Figure(), {name: f"y{i or ''}" for i, name in zip((0, 2, 3, 4, 5), PANELS, strict=True)}
    followed = zip(_followed(info.curves), itertools.cycle(WATCHED), strict=False)
    looks = CURVES | {name: (_text(name), "ppl", *look) for name, look in followed}
    for name, (steps, values) in info.curves.items():
        title, panel, colour, dash = looks[name]
        figure.add_scatter(
            x=steps, y=values, name=title, yaxis=axes[panel], legend=_legend(panel),
            mode=mode(steps), marker={"size": 5},
            line={"color": f"var(--pv-{colour})", "width": 2, "dash": dash},
            hovertemplate="%{y:.1%}" if panel == "sparsity" else "%{y:.4g}",
        )  # fmt: skip
    if info.teachers:
        figure.add_trace(_strip(info.teachers, axes["teacher"]))
        figure.add_annotation(
            text="<b>Teacher</b>  faint: the dense model; strong: a sparse snapshot of the student",
            xref="paper", yref="paper", x=0, y=PANELS["teacher"][2], xanchor="left", yanchor="bottom",
            showarrow=False, font={"size": 12},
        )  # fmt: skip
    figure.update_layout(
        height=800, margin={"l": 56, "r": 24, "t": 34, "b": 48}, hovermode="x unified", hoversubplots="axis",
        xaxis={"title": {"text": "Step", "font": {"size": 13}}, "anchor": axes["multipliers"],
               "range": [0.5, max(info.steps, info.done, 1) + 0.5]},
        meta={"description": "The training so far: sparsity, teacher, losses, perplexity and multipliers"},
    )  # fmt: skip
    for panel, (title, low, high) in PANELS.items():
        figure.layout[axes[panel].replace("y", "yaxis")] = {
            "domain": [low, high], **_axis(panel, info),
        }  # fmt: skip
        figure.layout[_legend(panel)] = {
            "orientation": "h", "x": 0, "y": high + 0.004, "yanchor": "bottom", "font": {"size": 12},
            "title": {"text": f"<b>{title}</b>", "side": "left"},
        }  # fmt: skip
    return figure


def _legend(panel: str) -> str:
    return {name: f"legend{i or ''}" for i, name in zip((0, 2, 3, 4, 5), PANELS, strict=True)}[panel]


def _axis(panel: str, info: TrainingInfo) -> dict[str, object]:
    if panel == "sparsity":
        return {"tickformat": ".0%", "rangemode": "tozero"}
    if panel == "teacher":
        return {"showticklabels": False, "showgrid": False, "fixedrange": True}
    if panel == "ppl":
        names = [name for name in info.curves if name.startswith(CUT)]
        values = [value for name in names for value in info.curves[name][1]]
        log = bool(values) and max(values) > 5 * min(values)
        return {**perplexity_axis(values, log), "title": None}
    return {"nticks": 4} if panel == "multipliers" else {"rangemode": "tozero", "nticks": 4}


def _strip(teachers: list[Span], axis: str) -> go.Heatmap:
    """One row of colour: the darker, the sparser the teacher."""
    import plotly.graph_objects as go

    edges = [span.first - 0.5 for span in teachers] + [teachers[-1].last + 0.5]
    return go.Heatmap(
        z=[[span.sparsity for span in teachers]], x=edges, y=[0], yaxis=axis, showscale=False, zmin=0,
        zmax=max(0.01, *(span.sparsity for span in teachers)), customdata=[[span.name for span in teachers]],
        colorscale=[[0, "var(--pv-soft)"], [1, "var(--pv-accent)"]], name="Teacher",
        hovertemplate="%{customdata}<extra>Teacher</extra>",
    )  # fmt: skip
