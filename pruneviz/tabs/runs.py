"""The Runs tab: every run in one table, one of them in detail, and the form for a new one.

Element ids: runs-table, runs-first, runs-refresh, run-box, run-detail, run-curves, run-log, run-command,
run-spec, run-message; those of the buttons are in `run_buttons.py`, the form's in `new_run.py`, those of a
training in `training.py`, those of exports in `taking.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from core.errors import PruneError
from core.runs import launch
from core.runs.command_line import command_line
from core.runs.events import Event, warnings
from core.runs.watch import log_tail
from core.spec.export import FORMATS, ExportSpec
from core.spec.run import RunSpec
from pruneviz import scripts
from pruneviz.actions import launch as actions
from pruneviz.components.base import panel
from pruneviz.components.plotly_figure import figure_payload, plotly_figure
from pruneviz.context import AppContext, memory
from pruneviz.data import runs
from pruneviz.data.runs import RunRecord
from pruneviz.data.tail import drawn, read_events
from pruneviz.figures import states
from pruneviz.figures.curves import curves_figure, curves_info
from pruneviz.figures.run_detail import detail_html
from pruneviz.figures.runs_table import of_this_machine, row_info, table_html
from pruneviz.tabs.example import fresh_spec
from pruneviz.tabs.new_run import build_new_run
from pruneviz.tabs.new_run_fields import NewRun
from pruneviz.tabs.parts import LATEST, QUIET, Parts, intro, message, only_changed, while_open
from pruneviz.tabs.run_buttons import (
    Deleting,
    RunButtons,
    Show,
    build_deleting,
    build_run_buttons,
    run_buttons,
    wire_deleting,
)
from pruneviz.tabs.taking import TakingView, build_taking, start, taking_updates
from pruneviz.tabs.training import TrainingView, build_training, training_updates

INTRO = "All runs in this folder. They go on when you close this page; come back any time."
POLL_S = 1.5
LOG_LINES = 12
NO_RUNS = states.empty_html(
    "No runs yet", "A run prunes a model, measures it before and after, and keeps the result in this folder."
)


@dataclass(frozen=True)
class View(Parts):
    """The components that show the table and the chosen run."""

    table: gr.HTML
    first: gr.Button
    box: gr.Column
    detail: gr.HTML
    lines: gr.Column
    curves: gr.HTML
    log: gr.Textbox
    command: gr.Textbox
    spec: gr.Code
    buttons: RunButtons
    timer: gr.Timer
    training: TrainingView
    taking: TakingView
    sent: gr.Textbox
    asking: gr.Column


def build_runs_tab(app: AppContext) -> None:
    """Build the tab and wire it."""
    with gr.Row(elem_classes="pv-line"):
        intro(INTRO)
        refresh = gr.Button("Refresh", elem_id="runs-refresh", size="sm", scale=0, min_width=90)
    form = build_new_run(app)
    problem = panel("run-message", visible=False, render=False)
    table = panel("runs-table", min_height=104)
    first = gr.Button("Set up the first run", variant="primary", elem_id="runs-first", visible=False, scale=0)
    with gr.Column(elem_id="run-box", visible=False) as box:
        view, deleting = _build_detail(table, first, box, problem)
    show = _wire(app, view, form, problem, refresh)
    wire_deleting(app, view.buttons.delete, deleting, problem, show, view.all())


def _build_detail(
    table: gr.HTML, first: gr.Button, box: gr.Column, problem: gr.HTML
) -> tuple[View, Deleting]:
    detail = panel("run-detail", min_height=150)
    buttons = build_run_buttons()
    problem.render()  # beside the buttons that it is about: on a phone the top of the page is out of sight
    deleting = build_deleting()
    taking = build_taking()
    training = build_training()
    with gr.Column(visible=False) as lines:
        curves = plotly_figure(elem_id="run-curves")
    log = gr.Textbox(
        label="Last lines of the log", lines=LOG_LINES, max_lines=LOG_LINES, interactive=False,
        elem_id="run-log", autoscroll=True,
    )  # fmt: skip
    with gr.Accordion("Command line and specification", open=False):
        command = gr.Textbox(
            label="The same run from a shell", lines=2, interactive=False, elem_id="run-command",
            buttons=["copy"],
        )  # fmt: skip
        spec = gr.Code(
            language="json", label="spec.json", elem_id="run-spec", interactive=False, max_lines=24
        )
    timer = gr.Timer(POLL_S, active=False)
    sent = memory("runs-sent")
    return View(
        table,
        first,
        box,
        detail,
        lines,
        curves,
        log,
        command,
        spec,
        buttons,
        timer,
        training,
        taking,
        sent,
        deleting.box,
    ), deleting


def _wire(app: AppContext, view: View, form: NewRun, problem: gr.HTML, refresh: gr.Button) -> Show:
    """Returns what shows a run."""
    url, row, here = app.url, view.buttons, [app.url.run, app.url.model]

    # While the tab is being opened the address still names the one before: only a clock has to ask for it.
    def show(run: str, model: str, sent: str = "", tab: str = "runs") -> dict[Any, Any]:
        changed, shown = only_changed(view.filled(_view(app, run, tab, model)), sent)
        return {**changed, view.sent: shown}

    def act(action: Any) -> Any:
        def clicked(run: str, model: str) -> dict[Any, Any]:
            done = _attempt(app, lambda record: action(record.path), run)
            return {problem: message(done), **show(run, model)}

        return clicked

    def export(to: str) -> Any:
        def clicked(kind: str, run: str, model: str) -> dict[Any, Any]:
            asked = ExportSpec(to=to, type=kind)
            launched = _attempt(app, lambda record: start(app, record, asked), run)
            return {**show(run, model), view.taking.problem: message(launched)}

        return clicked

    events = [app.tabs["runs"].select, refresh.click, while_open(app, "runs", url.run).change]
    gr.on(events, show, here, view.all(), **LATEST)
    view.timer.tick(show, [*here, view.sent, url.tab], view.all(), **QUIET)
    url.tab.change(None, url.tab, view.timer, js=scripts.pause_unless("runs"), api_visibility="private")
    for button, action in ((row.stop, launch.stop), (row.end, launch.kill), (row.resume, launch.resume)):
        button.click(act(action), here, [problem, *view.all()], **QUIET)
    for name in FORMATS:
        button = getattr(view.taking, name)
        button.click(export(name), [view.taking.type, *here], view.all(), **QUIET)
    cloned = [problem, url.run, url.model, *form.filled()]
    row.clone.click(lambda *where: _clone(app, form, *where), here, cloned, **QUIET)
    row.again.click(lambda run: _again(app, form, run), url.run, [url.model, *form.filled()], **QUIET)
    row.compare.click(None, None, None, js=scripts.open_tab("compare"), api_visibility="private")
    row.widths.click(None, None, None, js=scripts.open_tab("widths"), api_visibility="private")
    view.first.click(lambda: gr.Accordion(open=True), None, form.box, **QUIET)
    form.launched.change(lambda run: run, form.launched, url.run, **QUIET)
    return show


def _attempt(app: AppContext, action: Any, run: str) -> str:
    """Do something to the chosen run; what went wrong, in words, or nothing."""
    record = _chosen(app, run)
    if record is None:
        return _missing(run, bool(app.records("", run)))
    try:
        action(record)
    except PruneError as error:
        return states.failure_html(error)
    return ""


def _clone(app: AppContext, form: NewRun, run: str, model: str) -> list[Any]:
    """The model of the chosen run, and the form that asks for the same again.

    What an example asks for that is not asked for in the form is launched at once.
    """
    record = _shown(app.records(model, run), run)
    spec = record.spec if record else None
    if record and record.example and spec and spec.goal != "prune":
        unchanged = [gr.skip()] * (1 + len(form.filled()))
        try:
            return [message(""), actions.launch(app, fresh_spec(app, record)).name, *unchanged]
        except PruneError as error:
            return [message(states.failure_html(error)), gr.skip(), *unchanged]
    return [message(""), gr.skip(), record.model if record and spec else gr.skip(), *form.filled_from(record)]


def _again(app: AppContext, form: NewRun, run: str) -> list[Any]:
    """The model that the chosen run left, and the form that asks to cut it by the same way once more.

    Units chosen by hand are numbered otherwise now; training is asked for anew.
    """
    record = _chosen(app, run)
    if record is None or record.spec is None:
        return [gr.skip(), *form.filled_from(None)]
    prune = RunSpec().prune if record.spec.prune.units else record.spec.prune
    spec = replace(record.spec, goal="prune", name="", prune=prune, recover=RunSpec().recover)
    return [str(record.path), *form.filled_from(replace(record, spec=spec))]


def _chosen(app: AppContext, run: str) -> RunRecord | None:
    """The run in the address, or the newest one."""
    if run:
        return runs.find(app.runs_dir, run)
    return next(iter(runs.list_runs(app.runs_dir)), None)


def _shown(records: Sequence[RunRecord], run: str) -> RunRecord | None:
    """The run in the address, or the newest one; an example where there is no other."""
    return next((r for r in records if r.id == run), None) if run else next(iter(records), None)


def _view(app: AppContext, run: str, tab: str, model: str = "") -> dict[str, Any]:
    """Everything `View` shows, without `sent`."""
    records, notes = app.records(model, run), app.examples.notes
    chosen = _shown(records, run)
    table = table_html([row_info(r) for r in records], chosen.id if chosen else "", notes)
    return {
        "table": of_this_machine(records) + (table if records else NO_RUNS + states.notes_html(*notes)),
        "first": gr.Button(visible=all(record.example for record in records)),
        "timer": gr.Timer(active=tab == "runs" and any(record.live for record in records)),
        "buttons": run_buttons(chosen),
        **(_detail(chosen) if chosen else _no_detail(run, bool(records))),
        "taking": taking_updates(chosen, records),
        "asking": gr.Column(visible=False),  # whether to delete another
    }


def _detail(record: RunRecord) -> dict[str, Any]:
    """The chosen run."""
    events, log = read_events(record.path), log_tail(record.path, LOG_LINES)
    notes = [*warnings(events), *runs.training_notes(record, events)]
    return {
        "box": gr.Column(visible=True),
        "detail": detail_html(record, log_tail(record.path), notes),
        **_curves(record, events),
        "log": gr.Textbox(log, visible=bool(log)),
        "command": command_line(record.spec) if record.spec else "",
        "spec": runs.spec_json(record),
        "training": training_updates(record, events),
    }


def _no_detail(run: str, others: bool) -> dict[str, Any]:
    """No run was chosen, or there is no such run; `others`: whether there is any to choose."""
    return {
        "box": gr.Column(visible=bool(run)),
        "detail": _missing(run, others),
        "lines": gr.Column(visible=False),
        "log": gr.Textbox("", visible=False),
        "command": "",
        "spec": "",
        "training": training_updates(None, []),
    }


def _curves(record: RunRecord, events: list[Event]) -> dict[str, Any]:
    """Whether there is a line to draw, and the figure."""

    def draw() -> str | None:
        info = curves_info(events)
        return None if info.empty else figure_payload(curves_figure(info), "curves", record.id)

    figure = drawn(record.path, "curves", len(events), record.live, draw)
    lines = gr.Column(visible=figure is not None)
    return {"lines": lines, "curves": figure} if figure else {"lines": lines}


def _missing(run: str, others: bool) -> str:
    advice = "Choose one from the table above." if others else "Start one with New run, above."
    return run and states.empty_html("This run is gone", f"There is no run {run} in this folder. {advice}")
