"""The part of the Sensitivity tab where a budget is dragged, and its plan handed to the New run form.

Element ids: sensitivity-budget, sensitivity-budget-state; inside: budget-slider, budget-of, budget-launch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from core.errors import ArtifactError, PruneError, SpecError
from core.spec.run import RunSpec
from pruneviz.components.base import panel, payload
from pruneviz.components.budget_planner import budget_planner
from pruneviz.context import AppContext, Asking
from pruneviz.data.deciding import kept_curves, read_for_curves, spec_of, to_browser
from pruneviz.data.tail import drawn
from pruneviz.figures import states
from pruneviz.tabs.parts import LATEST, while_open

NO_CURVES = (
    "Scan attention and FFN at some shares, best 0.15, 0.35, 0.6, 0.85, or prune with scope searched; then a "
    "budget can be dragged here, and the widths of every layer follow."
)


def build_deciding(app: AppContext) -> Callable[[gr.Textbox], None]:
    """Build it where the page stands; gives what wires it to a box that changes as curves come."""
    planner = budget_planner(elem_id="sensitivity-budget")
    state = panel("sensitivity-budget-state", visible=False)

    def show(model: str) -> list[Any]:
        return _shown(app, model)

    def asked(model: str, event: gr.EventData) -> RunSpec:
        return _asked(app, model, event.counts)

    app.asking.append(Asking(planner.launch, asked, state))

    def wire(shown: gr.Textbox) -> None:
        changed = while_open(app, "sensitivity", app.url.model, shown).change
        gr.on([app.tabs["sensitivity"].select, changed], show, app.url.model, [planner, state], **LATEST)

    return wire


def _asked(app: AppContext, model: str, given: object) -> RunSpec:
    """The run of what the browser found. Raises PruneError."""
    kept = kept_curves(app.records(model), model)
    if kept is None:
        raise ArtifactError(f"The curves are not there any more. {NO_CURVES}")
    try:
        counts = json.loads(str(given))
    except ValueError as error:
        raise SpecError("The widths that were sent cannot be read; move the slider again.") from error
    if not isinstance(counts, dict):
        raise SpecError("The widths that were sent cannot be read; move the slider again.")
    return spec_of(kept, app.usual(model), counts)


def _shown(app: AppContext, model: str) -> list[Any]:
    """What the planner and its state hold."""
    records = app.records(model)

    def show() -> str:
        kept = kept_curves(records, model)
        return payload({} if kept is None else to_browser(kept))

    try:
        sent = drawn(app.runs_dir, f"budget of {model}", read_for_curves(records, model), False, show)
    except PruneError as error:
        return [payload({}), gr.HTML(states.failure_html(error), visible=True)]
    if sent == payload({}):
        return [sent, gr.HTML(states.notes_html(NO_CURVES), visible=True)]
    return [sent, gr.HTML(visible=False)]
