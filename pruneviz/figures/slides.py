"""Finished runs as slides for people who were not there: numbers, scores, layers, answers, how it was made.

Read from the runs' files alone: no model is loaded to show them, and nothing can be changed. Whatever a model
wrote is escaped by the templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from core.errors import ArtifactError
from core.report import sections
from core.report.run import Run
from core.results import words
from core.results.perplexity import by_text
from core.results.quantities import QUANTITIES, perplexity_titles
from pruneviz.data.contenders import Contender, Lineup, with_before
from pruneviz.data.measured import kept_answer, kept_samples
from pruneviz.figures.compare import Entry, compare_html, compare_info
from pruneviz.figures.render import render
from pruneviz.figures.score_chart import COLOURS, ChartInfo, costs_chart_info, scores_chart_info
from pruneviz.figures.task_scores import word_difference


@dataclass(frozen=True)
class Slide:
    """One page of the talk."""

    title: str
    body: Markup


def slides(lineup: Lineup, entries: Sequence[Entry], asking: Slide | None = None) -> list[Slide]:
    """All slides, in order; what a run did not leave has no slide.

    Args:
        entries: the numbers of the lineup's models, before recovery included.
        asking: where an audience asks; it follows what the runs were asked.
    """
    info = compare_info(entries)
    costs = costs_chart_info(info, entries)
    times = "; times ± half of slowest minus fastest" if costs.errors else ""
    charts = [
        ("Size and speed", costs, f"Percent of the first model{times}"),
        ("What the models still can do", scores_chart_info(info), "Score in percent, ± one standard error"),
    ]
    drawn = [Slide(title, bars(chart, note)) for title, chart, note in charts if not chart.empty]
    numbers = Slide("In numbers", compare_html(info))
    runs = [run for run in map(_read, lineup.contenders) if run is not None]
    shown = [cover(lineup, entries), *drawn, numbers, *_layers(runs)]
    return [*shown, *answers(lineup), *([asking] if asking else []), *map(_made, runs)]


def cover(lineup: Lineup, entries: Sequence[Entry]) -> Slide:
    """Which models, how much went, and what that did to perplexity."""
    models = [
        (contender.title, _facts(contender.record.metrics))
        for contender in lineup.contenders
        if contender.record is not None and contender.side != "dense"
    ]
    names = " and ".join(dict.fromkeys(lineup.base.values())) or "Models"
    body = render("slides/cover.html", names=names, models=models, notes=lineup.notes)
    return Slide("Pruned and dense, side by side", body)


def _facts(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value, and what the value depends on."""
    return [
        ("Removed", words.removed(metrics), ""),
        ("Parameters", _change(metrics, "params", words.count), ""),
        *_perplexities(metrics),
    ]


def bars(info: ChartInfo, note: str) -> Markup:
    """Horizontal bars, one group a name; the numbers stand beside them."""
    top = max((value for row in info.values for value in row if value is not None), default=1.0) or 1.0
    return render("slides/bars.html", info=info, top=top, colours=len(COLOURS), note=note)


def answers(lineup: Lineup) -> list[Slide]:
    """One slide a prompt that any model wrote something to: every answer, words that differ from the first's
    marked.
    """
    models = with_before(lineup.contenders)
    prompts = dict.fromkeys(str(sample["prompt"]) for model in models for sample in kept_samples(model))
    told = {prompt: _sides(models, prompt) for prompt in prompts}
    return [
        Slide(f"“{prompt}”", render("slides/answers.html", sides=sides))
        for prompt, sides in told.items()
        if any(stretches for _, stretches, _ in sides)
    ]


def _sides(models: Sequence[Contender], prompt: str) -> list[tuple[str, list[tuple[str, bool]], str]]:
    """Title, answer in stretches, and why there is none."""
    kept = [kept_answer(model, prompt) for model in models]
    texts = [str(answer.get("text", "")) for answer in kept]
    return [
        (
            model.title,
            word_difference(texts[0], text) if texts[0] else [(text, False)] if text else [],
            "The model ended its answer at once." if answer else "No answer kept.",
        )
        for model, text, answer in zip(models, texts, kept, strict=True)
    ]


def _layers(runs: Sequence[Run]) -> list[Slide]:
    return [
        Slide(f"What is left of every layer: {run.title}", sections.widths(run)) for run in runs if run.widths
    ]


def _made(run: Run) -> Slide:
    return Slide(f"How it was made: {run.title}", sections.summary(run) + sections.made(run))


def _read(contender: Contender) -> Run | None:
    if contender.record is None or contender.side == "dense":
        return None
    try:
        return Run(contender.record.path)
    except ArtifactError:  # its numbers are shown all the same
        return None


def _change(metrics: dict[str, Any], name: str, write: words.Writer) -> str:
    values = [metrics.get(f"{name}_{side}") for side in ("before", "after")]
    return " → ".join(write(value) for value in values if value is not None) or words.DASH


def _perplexities(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """On every text with their standard errors, and what they depend on; what is trained stands between."""
    texts, facts = by_text(metrics), []
    for title, row in zip(perplexity_titles(texts), texts, strict=True):
        sides = [
            words.perplexity(value, row.get(f"ppl_stderr_{side}"))
            for side in ("before", "pruned", "after")
            if (value := row.get(f"ppl_{side}")) is not None
        ]
        calibrated = words.calibrated_on(row)
        about = [words.measured_on(row), f"calibrated on {calibrated}" if calibrated else ""]
        facts.append((title, " → ".join(sides) or words.DASH, "; ".join(filter(None, about))))
        far = [row[f"kl_{side}"] for side in ("pruned", "after") if row.get(f"kl_{side}") is not None]
        if far:
            told = " → ".join(map(words.divergence, far))
            facts.append((title.replace(QUANTITIES["ppl"].title, QUANTITIES["kl"].title, 1), told, ""))
    return facts
