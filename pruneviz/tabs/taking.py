"""Take it with you, on the Runs tab: every way to run a result, and a button for each file to make of it.

Element ids: run-taking, take-hf, take-gguf, take-onnx, take-type, take-message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from core.errors import ModelError, PruneError
from core.option import options_of
from core.runs.artifacts import MODEL, PLAN
from core.ship.routes import require
from core.spec.export import FORMATS, ExportSpec
from core.spec.run import RunSpec
from pruneviz.actions import launch as actions
from pruneviz.components.base import panel
from pruneviz.components.copying import copying
from pruneviz.components.taking import taking_html, taking_info
from pruneviz.context import AppContext
from pruneviz.data import exports, runs
from pruneviz.data.runs import RunRecord
from pruneviz.figures import states
from pruneviz.tabs.parts import Parts

NO_PLAN = (
    "Nothing can be made of this result",
    f"Its folder has no {PLAN}; copy the whole folder of the run here.",
)


@dataclass(frozen=True)
class TakingView(Parts):
    """What is said of a result, and what makes files of it."""

    box: gr.Column
    ways: gr.HTML
    hf: gr.Button
    gguf: gr.Button
    type: gr.Dropdown
    onnx: gr.Button
    problem: gr.HTML


def build_taking() -> TakingView:
    """Build the section, hidden until there is a result."""
    option = options_of(ExportSpec)["type"]
    with gr.Column(visible=False) as box:
        ways = copying("run-taking")
        with gr.Row(elem_id="take-buttons"):
            hf, gguf, onnx = (
                gr.Button(f"Write {words.lower()}", elem_id=f"take-{name}", scale=0, min_width=200)
                for name, words in FORMATS.items()
            )
            kind = gr.Dropdown(
                [(words, value) for value, words in option.choices.items()], value=ExportSpec().type,
                label=option.title, elem_id="take-type", scale=0, min_width=220,
            )  # fmt: skip
        problem = panel("take-message", visible=False)
    return TakingView(box, ways, hf, gguf, kind, onnx, problem)


def taking_updates(record: RunRecord | None, records: Sequence[RunRecord]) -> dict[str, Any]:
    """What `TakingView` shows beside the chosen run; hidden where there is no result."""
    source = exports.source_of(record, records) if record else None
    if source is None:
        return {"box": gr.Column(visible=False)}
    closed = {name: gr.Button(interactive=False) for name in FORMATS}
    try:
        ways = taking_info(source, records)
    except PruneError as error:
        whole = (source.path / MODEL / PLAN).is_file()
        said = states.failure_html(error) if whole else states.empty_html(*NO_PLAN)
        return {"box": gr.Column(visible=True), "ways": said, **closed}
    open_ways = {way.name for way in ways if way.possible and not (way.made and way.made.share is not None)}
    buttons = {name: gr.Button(interactive=name in open_ways) for name in FORMATS}
    return {"box": gr.Column(visible=True), "ways": taking_html(ways), **buttons}


def start(app: AppContext, record: RunRecord, export: ExportSpec) -> None:
    """Launch an export of what the chosen run left. Raises PruneError, before anything is queued."""
    source = exports.source_of(record, runs.list_runs(app.runs_dir))
    if source is None:
        raise ModelError(f"Run {record.id} has left no model; choose a finished pruning run.")
    subject = exports.on_paper(source)[0]
    ready = require(export.to, subject).ready
    if ready is not None:
        ready(subject, source.path / MODEL, export)
    actions.launch(app, RunSpec(goal="export", model=app.model_spec(str(source.path)), export=export))
