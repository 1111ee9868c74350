"""The chosen units of the Structure tab: their summed cost, the way into a run, and a trial as a mask.

Element ids: structure-chosen, structure-prune, structure-try, structure-none, structure-trial,
structure-prompt, structure-go, structure-stop, structure-trial-state, structure-dense, structure-masked,
structure-measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from core.errors import PruneError
from core.graph.records import Graph
from core.spec.evaluate import EvalSpec
from pruneviz.actions.trial import Trial, measured_html, try_mask
from pruneviz.components.base import panel
from pruneviz.components.structure_map import buttons
from pruneviz.context import AppContext
from pruneviz.data import selection
from pruneviz.data.cards import weightless
from pruneviz.figures import states
from pruneviz.figures.chosen import chosen_html, chosen_info
from pruneviz.tabs.parts import QUIET, Parts

TOKENS = 48
IDLE = states.paragraph_html("Nothing is being tried.")
DONE = states.paragraph_html("Done.")


@dataclass(frozen=True)
class PlanCard(Parts):
    """The card with the sums and its buttons."""

    card: gr.HTML
    prune: gr.Button
    trial: gr.Button
    none: gr.Button
    go: gr.Button


@dataclass(frozen=True)
class TrialBox(Parts):
    """The trial below."""

    state: gr.HTML
    dense: gr.Textbox
    masked: gr.Textbox
    measured: gr.HTML


def build_card() -> tuple[gr.HTML, gr.Button, gr.Button, gr.Button]:
    """The card and its three buttons, in the column it is called in."""
    card = buttons(elem_id="structure-chosen", min_height=150)
    with gr.Row(elem_id="structure-actions"):
        prune = gr.Button(
            "Prune these…", variant="primary", elem_id="structure-prune", scale=0, min_width=110,
            interactive=False,
        )  # fmt: skip
        trial = gr.Button("Try as a mask", elem_id="structure-try", scale=0, min_width=110, interactive=False)
        none = gr.Button("Clear all", elem_id="structure-none", scale=0, min_width=90, interactive=False)
    return card, prune, trial, none


def build_trial() -> tuple[TrialBox, gr.Textbox, gr.Button, gr.Button]:
    """The box with the prompt and both answers, its prompt, and the buttons to start and stop."""
    with gr.Column(elem_id="structure-trial", elem_classes="pv-boxed"):
        gr.HTML(
            '<h3 class="pv-unit-title">Try without cutting</h3><p class="pv-quiet">The chosen units are '
            "silenced by a mask for one answer and a short perplexity; the model stays as it is.</p>"
        )
        with gr.Row(elem_classes="pv-field-row"):
            prompt = gr.Textbox(
                EvalSpec().prompts[0], label="Prompt", elem_id="structure-prompt", scale=6, max_lines=2
            )
            go = gr.Button("Try", elem_id="structure-go", scale=0, min_width=90, interactive=False)
            stop = gr.Button("Stop", elem_id="structure-stop", scale=0, min_width=90)
        state = panel("structure-trial-state", IDLE, styled=True, min_height=72)
        with gr.Row(equal_height=True):
            dense = gr.Textbox(
                label="Dense model", lines=4, max_lines=10, interactive=False, elem_id="structure-dense"
            )
            masked = gr.Textbox(
                label="With the mask", lines=4, max_lines=10, interactive=False, elem_id="structure-masked"
            )
        measured = panel("structure-measured", measured_html({}), styled=True)
    return TrialBox(state, dense, masked, measured), prompt, go, stop


def wire_plan(app: AppContext, card: PlanCard, box: TrialBox, prompt: gr.Textbox, stop: gr.Button) -> None:
    """Connect the buttons; what they show follows `app.url.units`, which the tab listens to."""
    url = app.url

    def attempt(model: str, units: str | None, words: str) -> Iterator[dict[Any, Any]]:
        for trial in _attempt(app, model, units, words):
            yield box.filled(_row(trial))

    app.handing_over.append(card.prune.click)
    card.none.click(lambda: "", None, url.units, **QUIET)
    card.card.discard(_discard, url.units, url.units, **QUIET)
    card.trial.click(None, None, None, js=_SHOW_TRIAL, api_visibility="private")
    gr.on(
        [card.trial.click, card.go.click, prompt.submit], attempt, [url.model, url.units, prompt], box.all(),
        **QUIET,
    )  # fmt: skip
    stop.click(lambda: app.stop_answers(), None, None, **QUIET)


_SHOW_TRIAL = """() => {
  document.getElementById("structure-trial").scrollIntoView({behavior: "smooth", block: "nearest"});
}"""


def shown(graph: Graph, model: str, units: str | None) -> dict[str, Any]:
    """What `PlanCard` shows of the chosen units."""
    info = chosen_info(graph, units, weightless(model))
    ready = bool(info.count) and not info.problem
    return {
        "card": chosen_html(info),
        "none": gr.Button(interactive=bool(units)),
        **{name: gr.Button(interactive=ready) for name in ("prune", "trial", "go")},
    }


def _discard(units: str | None, event: gr.EventData) -> str:
    """Without the groups of one chip."""
    gone = str(event.groups).split()
    return selection.text_of(
        {group: has for group, has in selection.units_of(units).items() if group not in gone}
    )


def _attempt(app: AppContext, model: str, units: str | None, prompt: str) -> Iterator[Trial]:
    try:
        chosen = selection.units_of(units)
    except PruneError as error:
        yield Trial(states.failure_html(error))
        return
    if not chosen:
        yield Trial(
            states.error_html(
                "No unit is chosen.", "Choose some above, then try again.", title=states.REFUSED
            )
        )
        return
    yield from try_mask(app, model, chosen, prompt, TOKENS)


def _row(trial: Trial) -> dict[str, Any]:
    dense, masked = trial.texts()
    state = trial.state or (DONE if "masked" in trial.measured else IDLE)
    return {"state": state, "dense": dense, "masked": masked, "measured": measured_html(trial.measured)}
