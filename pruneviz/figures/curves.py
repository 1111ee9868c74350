"""Curves of a run: every metric that has at least two points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.results import words
from core.runs.events import Event, metric_series
from pruneviz.figures.axes import mode, thinned
from pruneviz.figures.training import PREFIX

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: Plans of a search: perplexity on the text that chooses, over the share that goes.
_FRONT = "search.front"
#: Metric -> (what a person reads, the colour it has everywhere).
NAMES = {
    "sensitivity.attention": ("Perplexity, attention pruned", "var(--pv-attention)"),
    "sensitivity.ffn": ("Perplexity, feed-forward pruned", "var(--pv-ffn)"),
    "sensitivity.both": ("Perplexity, both pruned", "var(--pv-residual)"),
    _FRONT: ("Perplexity of the best plans", "var(--pv-accent)"),
    "recover.held_ppl": ("Perplexity of the text kept apart", "var(--pv-accent)"),
    "recover.ppl": ("Perplexity of", "var(--pv-removed)"),
    "recover.held_kl": ("Divergence from the teacher on the text kept apart", "var(--pv-accent)"),
    "recover.kl": ("Divergence from the teacher", "var(--pv-ffn)"),
    "recover.next_token_loss": ("Loss of the next token", "var(--pv-ffn)"),
    "recover.layer_loss": ("Layers apart, as a share of their variance", "var(--pv-ffn)"),
    "recover.loss": ("Loss on the text that is learned", "var(--pv-ffn)"),
    "recover.learning_rate": ("Learning rate", "var(--pv-quiet)"),
}
#: Heights in pixels: of one panel, of what is between two, and of what is around all of them.
_PANEL, _GAP, _EDGES = 130, 44, 88


@dataclass(frozen=True)
class CurvesInfo:
    """Metric name -> its steps and its values, both in order; thinned, the last point is always there."""

    curves: dict[str, tuple[list[float], list[float]]]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw yet."""
        return not self.curves


def curves_info(events: list[Event]) -> CurvesInfo:
    """Only what makes a line, but for trainings, which have a figure of their own."""
    told = metric_series(events)
    if _FRONT in told:
        told[_FRONT] = _best(told[_FRONT])
    series = {name: thinned(points) for name, points in told.items()}
    return CurvesInfo(
        {
            name: ([step for step, _ in points], [value for _, value in points])
            for name, points in series.items()
            if len(points) > 1 and not name.startswith(PREFIX)
        }
    )


def _best(plans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of each share the lowest perplexity, shares rising: a search that aims twice starts again below."""
    best: dict[float, float] = {}
    for share, ppl in plans:
        best[round(share, 1)] = min(ppl, best.get(round(share, 1), ppl))
    return sorted(best.items())


def _named(name: str) -> tuple[str, str]:
    """What a person reads and the colour; `sensitivity.ffn.0.5` says how much of the layer went.

    Beside the pruned model others may be trained, whose curves begin with their name (`words.BESIDE`).
    """
    scan, _, rest = name.partition(".")
    if scan in words.BESIDE:
        title, colour = _named(f"recover.{rest}")
        return f"{title}: {words.BESIDE[scan]}", colour
    kind, _, which = rest.partition(".")
    if kind == "head":
        return f"Perplexity without head {which}", "var(--pv-quiet)"
    if scan == "recover" and kind == "ppl":
        title, colour = NAMES["recover.ppl"]
        return f"{title} {words.short_text(which)}, not trained on", colour
    title, colour = NAMES.get(f"{scan}.{kind}" if kind else scan, (name, "var(--pv-accent)"))
    return (f"{title} by {float(which):.0%}" if which and title != name else title), colour


def curves_figure(info: CurvesInfo) -> go.Figure:
    """One line per metric, each over its own scale; those of a scan of the layers share one."""
    from plotly.subplots import make_subplots

    by_layer = all(name.startswith("sensitivity.") for name in info.curves)
    titles = ["Perplexity"] if by_layer else [_named(name)[0] for name in info.curves]
    gap = _GAP / (_PANEL * len(titles) + _GAP * (len(titles) - 1))
    figure = make_subplots(
        rows=len(titles), shared_xaxes=True, vertical_spacing=gap, subplot_titles=None if by_layer else titles
    )
    for number, (name, (steps, values)) in enumerate(info.curves.items()):
        title, colour = _named(name)
        look = {"line": {"color": colour, "width": 2}, "marker": {"size": 5}, "mode": mode(steps)}
        figure.add_scatter(x=steps, y=values, name=title, row=1 if by_layer else number + 1, col=1, **look)
    for title in figure.layout.annotations:
        title.update(x=0, xanchor="left", font={"size": 13})
    figure.update_yaxes(rangemode="tozero")
    if by_layer:
        figure.update_yaxes(title={"text": "Perplexity", "font": {"size": 13}})
    share = all(name == _FRONT for name in info.curves)
    below = "Layer" if by_layer else "Block parameters that go, in %" if share else "Step"
    last = {"text": below, "font": {"size": 13}}
    figure.update_xaxes(title=last, row=len(titles))
    figure.update_layout(
        height=_EDGES + (_PANEL + _GAP) * len(titles) - _GAP + (80 if by_layer else 0),
        margin={"l": 64, "r": 16, "t": 36, "b": 52},
        showlegend=by_layer,
        legend={"orientation": "h", "y": 1.14},
        meta={"description": "Curves of this run: " + ", ".join(_named(name)[0] for name in info.curves)},
    )
    return figure
