"""What opens the New run form from other tabs: units that were chosen there, or a whole run asked for."""

from __future__ import annotations

from typing import Any

import gradio as gr

from core.errors import PruneError
from core.spec.units import MANUAL
from pruneviz import scripts
from pruneviz.context import AppContext, Asking
from pruneviz.figures import states
from pruneviz.tabs.new_run_fields import NewRun
from pruneviz.tabs.parts import QUIET, message


def wire_opening(app: AppContext, form: NewRun) -> None:
    """Connect what the tabs before left in `app`."""
    method, units = form.fields["prune.method"], form.fields["prune.units"]

    def take(chosen: str | None) -> dict[Any, Any]:
        return {form.box: gr.Accordion(open=True), method: MANUAL, units: chosen or ""}

    for event in app.handing_over:
        taken = event(take, app.url.units, [form.box, method, units], **QUIET)
        taken.then(None, None, None, js=scripts.open_tab("runs"), api_visibility="private")
    for asking in app.asking:
        _wire_asking(app, form, asking)


def _wire_asking(app: AppContext, form: NewRun, asking: Asking) -> None:
    """Open the form with what is asked for elsewhere; where that cannot be, say why, and stay there."""

    def fill(model: str, event: gr.EventData) -> list[Any]:
        try:
            return [message(""), *form.filled_with(asking.spec(model, event))]
        except PruneError as error:
            return [message(states.failure_html(error)), *[gr.skip()] * len(form.filled())]

    filled = asking.event(fill, app.url.model, [asking.state, *form.filled()], **QUIET)
    to_form = scripts.open_tab("runs", unless="problem")
    filled.then(None, asking.state, None, js=to_form, api_visibility="private")
