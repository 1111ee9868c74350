"""The Widths tab: what a run left of every layer, beside other widths and the sensitivity of the layers.

Element ids: widths-run, widths-against, widths-state, widths-to-runs, widths-content, widths-summary,
widths-chart, widths-table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from core.errors import PruneError
from core.results import words
from core.results.sensitivity import SENSITIVITY, read_sensitivity
from core.results.widths import WIDTHS, read_widths
from pruneviz import scripts
from pruneviz.components.base import panel
from pruneviz.components.plotly_figure import figure_payload, plotly_figure
from pruneviz.context import AppContext
from pruneviz.data.runs import RunRecord
from pruneviz.figures import states
from pruneviz.figures.sensitivity import SensitivityInfo, sensitivity_info
from pruneviz.figures.widths import (
    Profile,
    profile_of,
    published_profiles,
    summary_html,
    table_html,
    widths_figure,
    widths_info,
)
from pruneviz.tabs.example import ExampleBar, build_example_bar, example_bar, wire_yours
from pruneviz.tabs.parts import LATEST, QUIET, Parts, intro, message, while_open

INTRO = (
    "How much a run has left of every layer, and below it, how much worse the model gets when that layer "
    "alone is pruned."
)
NOTHING = states.empty_html(
    "No widths yet", "A pruning run leaves them as soon as its plan is made. Start one on the Runs tab."
)
UNIFORM = "uniform"


@dataclass(frozen=True)
class WidthsPage(Parts):
    """The components that callbacks change."""

    run: gr.Dropdown
    against: gr.Dropdown
    bar: ExampleBar
    state: gr.HTML
    to_runs: gr.Button
    content: gr.Column
    summary: gr.HTML
    chart: gr.HTML
    table: gr.HTML


def build_widths_tab(app: AppContext) -> None:
    """Build the tab and wire it."""
    intro(INTRO)
    with gr.Row():
        run = gr.Dropdown([], label="Run", elem_id="widths-run", filterable=False)
        against = gr.Dropdown(
            _fixed(), value=[UNIFORM], label="Compare with", multiselect=True,
            elem_id="widths-against", scale=2,
        )  # fmt: skip
    bar = build_example_bar("widths")
    state = panel("widths-state", styled=True, min_height=110)
    to_runs = gr.Button("Open Runs", elem_id="widths-to-runs", variant="primary", visible=False, scale=0)
    with gr.Column(visible=False, elem_id="widths-content") as content:
        chart = plotly_figure(elem_id="widths-chart", min_height=480)
        summary = panel("widths-summary", styled=True)
        table = panel("widths-table", styled=True)
    page = WidthsPage(run, against, bar, state, to_runs, content, summary, chart, table)

    def show(chosen: str, model: str, picked: list[str]) -> dict[Any, Any]:
        return page.filled(fill(app, chosen, picked, model))

    events = [app.tabs["widths"].select, against.change, while_open(app, "widths", app.url.run).change]
    gr.on(events, show, [app.url.run, app.url.model, against], page.all(), **LATEST)
    run.input(lambda chosen: chosen, run, app.url.run, **QUIET)
    wire_yours(app, bar, lambda *where: _examples(app, *where), [app.url.run, app.url.model], state)
    to_runs.click(None, None, None, js=scripts.open_tab("runs"), api_visibility="private")


def _fixed() -> list[tuple[str, str]]:
    """What can always be compared with: (title, value)."""
    paper = [(profile.name, name) for name, profile in published_profiles().items()]
    return [("Uniform: the same share of every layer", UNIFORM), *paper]


def fill(app: AppContext, chosen: str, picked: list[str], model: str = "") -> dict[str, Any]:
    """What `WidthsPage` shows: the run in the address, or the newest that has widths."""
    records = {record.id: record for record in app.records(model, chosen) if _pruned(record)}
    record = records.get(chosen) or next(iter(records.values()), None)
    hidden = gr.Column(visible=False)
    if record is None:
        said = message(NOTHING + states.notes_html(*app.examples.notes))
        return {"state": said, "to_runs": gr.Button(visible=True), "content": hidden}
    titles = [(name_of(each), each.id) for each in records.values()]
    offered = [*_fixed(), *(title for title in titles if title[1] != record.id)]
    wanted = [value for value in picked or [] if value in {value for _, value in offered}]
    updates = {
        "run": gr.Dropdown(titles, value=record.id),
        "against": gr.Dropdown(offered, value=wanted, multiselect=True),
        "to_runs": gr.Button(visible=False),
        "bar": example_bar(record, record.example, own=False, live=False),
    }
    others = [value for value in wanted if value != UNIFORM]
    try:
        shown = _shown(app, record, others, UNIFORM in wanted, records)
    except PruneError as error:
        return {**updates, "state": message(states.failure_html(error)), "content": hidden}
    note = message(_note(record, chosen))
    return {**updates, "state": note, "content": gr.Column(visible=True), **shown}


def _examples(app: AppContext, chosen: str, model: str) -> list[RunRecord]:
    """The example that is shown, if one is."""
    records = [record for record in app.records(model, chosen) if _pruned(record)]
    shown = next((record for record in records if record.id == chosen), None) or next(iter(records), None)
    return [shown] if shown and shown.example else []


def _pruned(record: RunRecord) -> bool:
    return record.spec is not None and record.spec.goal == "prune" and record.has(WIDTHS)


def _note(record: RunRecord, chosen: str) -> str:
    if not chosen or chosen == record.id:
        return ""
    return states.notes_html("The chosen run has no widths, or none yet; this is the newest that has.")


def name_of(record: RunRecord) -> str:
    """What tells a run from others: its own name, or method, sparsity and model; then its time."""
    assert record.spec, "only runs with a spec are listed"
    asked = record.spec.prune
    share = asked.target or words.percent(asked.sparsity, 0)
    target = "" if asked.units else f", {share}"
    said = record.spec.name or f"{asked.method}{target} of {Path(record.model).name}"
    return f"{said} ({'example' if record.example else record.id[:15]})"


def _shown(
    app: AppContext, record: RunRecord, others: list[str], uniform: bool, records: dict[str, RunRecord]
) -> dict[str, Any]:
    published = published_profiles()
    compared = [published[name] if name in published else _profile(records[name]) for name in others]
    info = widths_info(_profile(record), compared, uniform, _sensitivity(app, record.model))
    chart = figure_payload(widths_figure(info), "widths", record.id)
    return {"summary": summary_html(info), "chart": chart, "table": table_html(info)}


def _profile(record: RunRecord) -> Profile:
    return profile_of(name_of(record), read_widths(record.path))


def _sensitivity(app: AppContext, model: str) -> SensitivityInfo | None:
    """The newest scan of the same model, if there is one."""
    scan = app.latest(model, SENSITIVITY)
    return sensitivity_info(read_sensitivity(scan)) if scan else None
