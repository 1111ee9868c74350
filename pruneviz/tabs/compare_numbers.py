"""The lower half of the Compare tab: scores, charts and questions that flipped.

Element ids: compare-table, compare-costs, compare-scores, compare-flips-of, compare-flips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gradio as gr

from pruneviz.components.base import panel
from pruneviz.components.plotly_figure import figure_payload, plotly_figure
from pruneviz.components.question_flips import flips_payload, question_flips
from pruneviz.data.contenders import DENSE, Lineup, with_before
from pruneviz.data.measured import scores
from pruneviz.data.runs import RunRecord
from pruneviz.figures.compare import compare_html, compare_info, entries_of
from pruneviz.figures.score_chart import ChartInfo, chart, costs_chart_info, scores_chart_info
from pruneviz.figures.task_scores import flipped
from pruneviz.tabs.parts import Parts

COSTS = "Sizes and speeds relative to the first model; for the speed of writing, longer is better"
SCORES = "Benchmark scores with one standard error"


@dataclass(frozen=True)
class Numbers(Parts):
    """The components `fill` fills."""

    table: gr.HTML
    costs_box: gr.Column
    costs: gr.HTML
    scores_box: gr.Column
    scores: gr.HTML
    flips_box: gr.Column
    flips_of: gr.Dropdown
    flips: gr.HTML


def build_numbers() -> Numbers:
    """Build table, charts and flips."""
    table = panel("compare-table", min_height=330)
    with gr.Row(equal_height=False):
        with gr.Column(visible=False) as costs_box:
            costs = plotly_figure(elem_id="compare-costs")
        with gr.Column(visible=False) as scores_box:
            score_chart = plotly_figure(elem_id="compare-scores")
    with gr.Column(visible=False) as flips_box:
        flips_of = gr.Dropdown(
            [], label="Benchmark questions answered otherwise than by the first model",
            elem_id="compare-flips-of", filterable=False,
        )  # fmt: skip
        flips = question_flips(elem_id="compare-flips")
    return Numbers(table, costs_box, costs, scores_box, score_chart, flips_box, flips_of, flips)


def fill(lineup: Lineup, records: Sequence[RunRecord]) -> dict[str, Any]:
    """What `Numbers` shows for these models."""
    entries = entries_of(lineup, records)
    info = compare_info(entries)
    runs = tuple(each.key for each in lineup.contenders if each.key != DENSE)
    choices = flip_choices(lineup, records)
    chosen = choices[0][1] if choices else None
    return {
        "table": compare_html(info, taken=True) if entries else "",
        **_chart("costs", costs_chart_info(info, entries), "of the first model", COSTS, runs),
        **_chart("scores", scores_chart_info(info), "score", SCORES, runs),
        "flips_box": gr.Column(visible=bool(choices)),
        "flips_of": gr.Dropdown(choices, value=chosen),
        "flips": flips_of(lineup, records, chosen),
    }


def _chart(name: str, info: ChartInfo, axis: str, description: str, runs: tuple[str, ...]) -> dict[str, Any]:
    if info.empty:
        return {f"{name}_box": gr.Column(visible=False)}
    return {f"{name}_box": gr.Column(visible=True), name: _drawn(info, axis, description, (name, *runs))}


@lru_cache(maxsize=64)
def _drawn(info: ChartInfo, axis: str, description: str, named: tuple[str, ...]) -> str:
    """The chart as it is sent; drawing it takes longer than all else on this tab."""
    return figure_payload(chart(info, axis, description), *named)


def flip_choices(lineup: Lineup, records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """(label, "task key") for every task and model whose questions can be set against the first model's."""
    models = with_before(lineup.contenders)
    choices, before = [], scores(models[0], records) if models else {}
    for model in models[1:]:
        after = scores(model, records)
        for task in before:
            lost, gained = flipped(before[task], after[task]) if task in after else ([], [])
            if lost or gained:
                counts = f"{len(lost)} lost, {len(gained)} gained"
                choices.append(
                    (f"{task}: {models[0].title} → {model.title} ({counts})", f"{task} {model.key}")
                )
    return choices


def flips_of(lineup: Lineup, records: Sequence[RunRecord], chosen: str | None) -> Any:
    """The payload of one choice of `flip_choices`."""
    models = with_before(lineup.contenders)
    task, _, key = (chosen or "").partition(" ")
    other = next((model for model in models if model.key == key), None)
    if other is None:
        return gr.skip()
    before, after = scores(models[0], records).get(task), scores(other, records).get(task)
    if before is None or after is None:
        return gr.skip()
    return flips_payload(*flipped(before, after), models[0].title, other.title)
