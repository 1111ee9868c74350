"""The Model tab: what is loaded, what could be, and which analyses are kept.

Element ids: model-source, model-open, model-here, model-state, model-card, model-parts, model-analyses,
model-analyse, model-stop, model-load, model-give-up, model-progress; those of the hub in `hub_search.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from huggingface_hub.constants import HF_HUB_CACHE

from core.errors import ArtifactError, PruneError
from core.models.sources import at_hand
from core.runs import launch
from core.runs.artifacts import GROUPS
from core.spec.explore import ANALYSES
from pruneviz import scripts
from pruneviz.actions import launch as actions
from pruneviz.actions.waiting import Given, ticking
from pruneviz.components.base import panel
from pruneviz.context import AppContext
from pruneviz.data import runs
from pruneviz.data.cards import Card, read_card
from pruneviz.data.runs import RunRecord
from pruneviz.data.sources import model_choices
from pruneviz.figures import states
from pruneviz.figures.model import analyses_html, analyses_info, card_html, parts_html, parts_info
from pruneviz.tabs.advice import build_advice
from pruneviz.tabs.hub_search import build_hub_search
from pruneviz.tabs.parts import QUIET, Parts, intro, message

INTRO = (
    "The model that all tabs work on: how it is built, where its parameters sit, and what has been measured."
)
SOURCES = "demo, a hub id such as HuggingFaceTB/SmolLM2-135M, a folder, or a .gguf file"
POLL_S = 1.5
NOWHERE = "It cannot be read. Open one of those that are here already, or see above what to mend."
UNCOUNTED, COUNTED_BY = "No analysis of it is here.", "Analyse this model to see where its parameters sit."


@dataclass(frozen=True)
class ModelPage(Parts):
    """The components that callbacks change."""

    source: gr.Textbox
    here: gr.Dropdown
    state: gr.HTML
    card: gr.HTML
    parts: gr.HTML
    analyses: gr.HTML
    progress: gr.HTML
    analyse: gr.Button
    stop: gr.Button
    timer: gr.Timer


def build_model_tab(app: AppContext) -> None:
    """Build the tab and wire it."""
    intro(INTRO)
    with gr.Row(equal_height=True, elem_classes="pv-field-row"):
        source = gr.Textbox(
            app.model, label="Model", info=SOURCES, elem_id="model-source", scale=5, max_lines=1
        )
        opener = gr.Button("Open", elem_id="model-open", scale=0, min_width=110)
    here = gr.Dropdown(
        [], label="Or one that is here already", elem_id="model-here", filterable=True, value=None,
        info="worked on lately, left by a run, or in the hub\u2019s cache",
    )  # fmt: skip
    build_hub_search(source)
    state = panel("model-state", visible=False)
    give_up = gr.Button("Stop reading", elem_id="model-give-up", size="sm", scale=0, visible=False)
    with gr.Row():
        analyse = gr.Button("Analyse this model", variant="primary", elem_id="model-analyse", scale=0)
        stop = gr.Button("Stop", elem_id="model-stop", scale=0, visible=False)
        load = gr.Button("Load into memory", elem_id="model-load", scale=0)
    progress = panel("model-progress", visible=False)
    with gr.Row(equal_height=True, elem_classes="pv-cards"):
        card = panel("model-card", elem_classes="pv-fill", min_height=330)
        parts = panel("model-parts", elem_classes="pv-fill", min_height=330)
    analyses = panel("model-analyses", min_height=230)
    build_advice(app)
    timer = gr.Timer(POLL_S, active=False)

    page = ModelPage(source, here, state, card, parts, analyses, progress, analyse, stop, timer)
    _wire_reading(app, page, _wire(app, page), opener, load, give_up)


def _wire(app: AppContext, page: ModelPage) -> Any:
    """Returns the event after which a model's files are shown."""
    url, everything = app.url, page.all()

    def show(model: str) -> dict[Any, Any]:
        return page.filled({**_describe(app, model), **_live(app, model)})

    def start(model: str) -> dict[Any, Any]:
        try:
            actions.launch(app, actions.explore_spec(app, model, ANALYSES))
        except PruneError as error:
            return page.filled({"progress": message(states.failure_html(error))})
        return page.filled(_live(app, model))

    def ask_to_stop(model: str) -> dict[Any, Any]:
        record = runs.live_run(app.runs_dir, model)
        if record:
            launch.stop(record.path)
        return page.filled(_live(app, model))

    def look_again(model: str) -> dict[Any, Any]:
        return page.filled(_reopened(app, model))

    app.tabs["model"].select(look_again, url.model, everything, **QUIET)
    shown = url.model.change(show, url.model, everything, **QUIET)
    url.tab.change(None, url.tab, page.timer, js=scripts.pause_unless("model"), api_visibility="private")
    page.analyse.click(start, url.model, everything, **QUIET)
    page.stop.click(ask_to_stop, url.model, everything, **QUIET)
    page.timer.tick(lambda model: page.filled(_tick(app, model)), url.model, everything, **QUIET)
    return shown


def _wire_reading(
    app: AppContext, page: ModelPage, shown: Any, opener: gr.Button, load: gr.Button, give_up: gr.Button
) -> None:
    """What the engine reads: a card, the weights; while it does, there is a button to stop it."""
    url = app.url

    def open_model(typed: str) -> Iterator[dict[Any, Any]]:
        for said, reading, model in _open(app, typed.strip()):
            yield {**_said(said, reading), **({url.model: model} if model else {})}

    def load_now(model: str) -> Iterator[dict[Any, Any]]:
        yield from _filled(_read(app.load, model, "Reading the weights"))

    def count(model: str) -> Iterator[dict[Any, Any]]:
        yield from _filled(_counted(app, model))

    def _filled(steps: Iterator[tuple[str, bool, str]]) -> Iterator[dict[Any, Any]]:
        for said, reading, card in steps:
            yield {**_said(said, reading), **({page.card: card} if card else {})}

    def _said(said: str, reading: bool) -> dict[Any, Any]:
        return {page.state: message(said), give_up: gr.Button(visible=reading)}

    told = [page.state, url.model, give_up]
    gr.on([opener.click, page.source.submit], open_model, page.source, told, **QUIET)
    chosen = page.here.input(lambda source: source or gr.skip(), page.here, page.source, **QUIET)
    chosen.then(open_model, page.source, told, **QUIET)
    described = [page.state, page.card, give_up]
    load.click(load_now, url.model, described, **QUIET)
    counting = shown.then(count, url.model, described, **QUIET)
    url.model.change(None, None, None, cancels=[counting], api_visibility="private")
    give_up.click(lambda: app.stop_answers(), None, None, **QUIET)


def _describe(app: AppContext, model: str) -> dict[str, Any]:
    """Source box, state, card and parts of `model`, from files alone."""
    choices = model_choices(runs.list_runs(app.runs_dir), Path(HF_HUB_CACHE))
    fields = {"source": model, "here": gr.Dropdown(choices, value=None)}
    try:
        card = app.known_card(model) or _unread(model)
    except PruneError as error:
        nothing = {"card": states.empty_html("The model", NOWHERE), "parts": _parts(app, model, UNCOUNTED)}
        return {**fields, "state": message(states.failure_html(error)), **nothing}
    return {**fields, "state": message(""), "card": card_html(card), "parts": _parts(app, model)}


def _unread(model: str) -> Card:
    """The card of a model that nobody has looked at. Raises ModelError if it can be nowhere."""
    at_hand(model)
    return Card(model, model)


def _parts(app: AppContext, model: str, unknown: str = COUNTED_BY) -> str:
    """The parameters by kind, or what to say where no run has counted them."""
    run = app.latest(model, GROUPS)
    if run is None:
        return states.empty_html("Parameters by kind", unknown)
    try:
        return parts_html(parts_info(runs.graph_of(run)))
    except ArtifactError as error:
        return states.failure_html(error)


def _live(app: AppContext, model: str) -> dict[str, Any]:
    """Analyses, progress, the two buttons and the clock."""
    records = app.records(model)
    live = runs.live_run(app.runs_dir, model)
    last = next((r for r in records if _explores(r, model)), None)
    ended = states.attempt_html(last) if last else ""
    return {
        "analyses": analyses_html(analyses_info(records, model), app.examples.notes),
        "progress": message(states.progress_html(live) if live else ended),
        "analyse": gr.Button(interactive=live is None),
        "stop": gr.Button(visible=live is not None),
        "timer": gr.Timer(active=live is not None),
    }


def _explores(record: RunRecord, model: str) -> bool:
    """Whether this is somebody's own analysis of the model."""
    explores = record.spec is not None and record.spec.goal == "explore"
    return explores and record.model == model and not record.example


def _reopened(app: AppContext, model: str) -> dict[str, Any]:
    """What may have changed while another tab was looked at; what somebody types meanwhile stays."""
    described = _describe(app, model)
    del described["source"]
    return {**described, **_live(app, model)}


def _tick(app: AppContext, model: str) -> dict[str, Any]:
    """While a run is live only its progress changes; when it has ended, everything may."""
    live = _live(app, model)
    if runs.live_run(app.runs_dir, model):
        return live
    reopened = _reopened(app, model)
    del reopened["here"]  # somebody may be choosing there
    return reopened


def _open(app: AppContext, typed: str) -> Iterator[tuple[str, bool, str]]:
    """What to say, whether a model is being read, and what the address calls it if there is such a one."""
    if not typed:
        yield states.error_html("No model was given.", f"Type {SOURCES}.", title=states.REFUSED), False, ""
        return
    try:
        if read_card(typed) is None:
            for step in ticking(app.card, typed):
                if isinstance(step, Given):
                    break
                yield states.loading_html(f"Looking for {typed}", step, "reading its description"), True, ""
    except PruneError as error:
        yield states.failure_html(error), False, ""
        return
    yield "", False, runs.source_key(typed)


def _counted(app: AppContext, model: str) -> Iterator[tuple[str, bool, str]]:
    """Have the engine count a model of which only the config is here, unless it has; as `_read`."""
    with suppress(PruneError):  # which the tab says already
        card = app.known_card(model)
        if card and card.bare and card.params is None and not card.refusal:
            yield from _read(app.card, model, "Counting what the config describes")


def _read(call: Callable[[str], Card], model: str, doing: str) -> Iterator[tuple[str, bool, str]]:
    """Have the engine read something: what to say, whether it is at it, and the card in the end."""
    try:
        for step in ticking(call, model):
            if isinstance(step, Given):
                yield "", False, card_html(step.value)
            else:
                yield states.loading_html(doing, step), True, ""
    except PruneError as error:
        yield states.failure_html(error), False, ""
