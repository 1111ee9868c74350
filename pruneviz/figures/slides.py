"""Finished runs as slides for people who were not there: numbers, scores, layers, answers, how it was made.

Read from the runs' files alone: no model is loaded and nothing can be changed. Whatever a model wrote is
escaped by `core.report.markup`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import ArtifactError
from core.report import sections
from core.report.markup import Markup, element, join
from core.report.run import Run
from core.results import words
from pruneviz.data.contenders import Contender, Lineup, with_before
from pruneviz.data.measured import kept_answer, kept_samples
from pruneviz.figures.compare import Entry, compare_html, compare_info
from pruneviz.figures.score_chart import COLOURS, ChartInfo, costs_chart_info, scores_chart_info
from pruneviz.figures.task_scores import word_difference


@dataclass(frozen=True)
class Slide:
    """One page of the talk."""

    title: str
    body: Markup


def slides(lineup: Lineup, entries: Sequence[Entry]) -> list[Slide]:
    """All slides, in order; what a run did not leave has no slide.

    Args:
        entries: the numbers of the lineup's models, before recovery included.
    """
    info = compare_info(entries, same_tokens=not lineup.tokenizers_differ)
    costs = costs_chart_info(info, entries)
    times = "; times ± half of slowest minus fastest" if costs.errors else ""
    charts = [
        ("Size and speed", costs, f"Percent of the first model{times}"),
        ("What the models still can do", scores_chart_info(info), "Score in percent, ± one standard error"),
    ]
    drawn = [Slide(title, bars(chart, note)) for title, chart, note in charts if not chart.empty]
    numbers = Slide("In numbers", Markup(compare_html(info)))
    runs = [run for run in map(_read, lineup.contenders) if run is not None]
    return [cover(lineup, entries), *drawn, numbers, *_layers(runs), *answers(lineup), *map(_made, runs)]


def cover(lineup: Lineup, entries: Sequence[Entry]) -> Slide:
    """Which models, how much went, and what that did to perplexity."""
    facts = []
    for one in lineup.contenders:
        if one.record is None or one.side == "dense":
            continue
        metrics = one.record.metrics
        lines = [
            ("Removed", words.sparsity(metrics.get("sparsity"), metrics.get("sparsity_total"))),
            ("Parameters", _change(metrics, "params", words.count)),
            ("Perplexity", _perplexities(metrics)),
        ]
        found = [element("div", element("dt", name), element("dd", text)) for name, text in lines]
        facts.append(element("div", element("h3", one.title), element("dl", *found), class_="fact"))
    names = " and ".join(dict.fromkeys(lineup.base.values())) or "Models"
    notes = [element("p", note, class_="pv-note") for note in lineup.notes]
    body = join(
        [element("p", names, class_="pv-mono pv-quiet"), element("div", *facts, class_="facts"), *notes]
    )
    return Slide("Pruned and dense, side by side", body)


def bars(info: ChartInfo, note: str) -> Markup:
    """Horizontal bars, one group a name; the numbers stand beside them."""
    top = max((value for row in info.values for value in row if value is not None), default=1.0) or 1.0
    groups = []
    errors = info.errors or tuple((None,) * len(info.names) for _ in info.models)
    for index, name in enumerate(info.names):
        rows = [
            _bar(model, number, info.values[number][index], errors[number][index], top)
            for number, model in enumerate(info.models)
        ]
        groups.append(element("div", element("h4", name), *rows, class_="group"))
    keys = [
        element("span", element("i", class_=f"c{n % len(COLOURS)}"), model)
        for n, model in enumerate(info.models)
    ]
    legend = element("p", *keys, class_="legend")
    return join([legend, element("div", *groups, class_="groups"), element("p", note, class_="pv-quiet")])


def answers(lineup: Lineup) -> list[Slide]:
    """One slide a prompt that any run kept: every model's answer, words that differ from the first marked."""
    models = with_before(lineup.contenders)
    prompts = dict.fromkeys(str(one["prompt"]) for each in models for one in kept_samples(each))
    return [
        Slide(f"“{prompt}”", element("div", *_sides(models, prompt), class_="sides")) for prompt in prompts
    ]


def _sides(models: Sequence[Contender], prompt: str) -> list[Markup]:
    texts = [str(kept_answer(one, prompt).get("text", "")) for one in models]
    found = []
    for one, text in zip(models, texts, strict=True):
        stretches = word_difference(texts[0], text) if texts[0] else [(text, False)]
        said = [element("mark", part) if differs else part for part, differs in stretches]
        body = (
            element("div", *said, class_="said")
            if text
            else element("p", "No answer kept.", class_="pv-quiet")
        )
        found.append(element("section", element("h3", one.title), body))
    return found


def _bar(model: str, number: int, value: float | None, error: float | None, top: float) -> Markup:
    if value is None:
        return element(
            "div", element("span", class_="track"), element("b", words.DASH), class_="row", title=model
        )
    text = f"{value:.1f} %" if error is None else f"{value:.1f} ± {error:.1f} %"
    fill = element("i", class_=f"c{number % len(COLOURS)}", style=f"width:{100 * value / top:.1f}%")
    return element(
        "div", element("span", fill, class_="track"), element("b", text), class_="row", title=model
    )


def _layers(runs: Sequence[Run]) -> list[Slide]:
    return [
        Slide(f"What is left of every layer: {run.title}", sections.widths(run)) for run in runs if run.widths
    ]


def _made(run: Run) -> Slide:
    return Slide(f"How it was made: {run.title}", join([sections.summary(run), sections.made(run)]))


def _read(one: Contender) -> Run | None:
    if one.record is None or one.side == "dense":
        return None
    try:
        return Run(one.record.path)
    except ArtifactError:  # its numbers are shown all the same
        return None


def _change(metrics: dict[str, Any], name: str, write: words.Writer) -> str:
    values = [metrics.get(f"{name}_{side}") for side in ("before", "after")]
    return " → ".join(write(value) for value in values if value is not None) or words.DASH


def _perplexities(metrics: dict[str, Any]) -> str:
    """With their standard errors; the pruned model stands between where it was trained."""
    found = [
        words.perplexity(value, metrics.get(f"ppl_stderr_{side}"))
        for side in ("before", "pruned", "after")
        if (value := metrics.get(f"ppl_{side}")) is not None
    ]
    return " → ".join(found) or words.DASH
