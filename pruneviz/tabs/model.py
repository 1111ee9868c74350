"""The Model tab: what is loaded, what could be, and which analyses are kept.

Element ids: model-source, model-open, model-state, model-card, model-parts, model-analyses, model-analyse,
model-stop, model-load, model-progress.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from core.errors import ArtifactError, PruneError
from core.runs.artifacts import GROUPS
from core.spec.explore import ANALYSES
from pruneviz.actions import launch as actions
from pruneviz.actions.waiting import Done, ticking
from pruneviz.components.base import panel
from pruneviz.context import AppContext
from pruneviz.data import runs
from pruneviz.data.cards import Card, read_card
from pruneviz.figures import states
from pruneviz.figures.model import analyses_html, analyses_info, card_html, parts_html, parts_info
from pruneviz.tabs.parts import intro, quietly

INTRO = (
    "The model everything here is about: how it is built, where its parameters sit, and what is known of it."
)
SOURCES = "demo, a hub id such as HuggingFaceTB/SmolLM2-135M, a folder, or a .gguf file"
POLL_S = 1.5


def build_model_tab(app: AppContext) -> None:
    """Build the tab and wire it."""
    intro(INTRO)
    with gr.Row(equal_height=True, elem_classes="pv-field-row"):
        source = gr.Textbox(
            app.model, label="Model", info=SOURCES, elem_id="model-source", scale=5, max_lines=1
        )
        opener = gr.Button("Open", elem_id="model-open", scale=0, min_width=110)
    state = panel("model-state", visible=False)
    with gr.Row():
        analyse = gr.Button("Analyse this model", variant="primary", elem_id="model-analyse", scale=0)
        stop = gr.Button("Stop", elem_id="model-stop", scale=0, visible=False)
        load = gr.Button("Load into memory", elem_id="model-load", scale=0)
    progress = panel("model-progress", visible=False)
    with gr.Row(equal_height=True):
        card = panel("model-card", elem_classes="pv-fill", min_height=330)
        parts = panel("model-parts", elem_classes="pv-fill", min_height=330)
    analyses = panel("model-analyses", min_height=230)
    timer = gr.Timer(POLL_S, active=False)

    seen: list[Any] = [source, state, card, parts]
    live: list[Any] = [analyses, progress, analyse, stop, timer]
    tab = app.tabs["model"]

    def show(model: str) -> list[Any]:
        return [*_describe(app, model), *_live(app, model)]

    def open_model(given: str) -> Iterator[list[Any]]:
        yield from _open(app, given.strip())

    def start(model: str) -> list[Any]:
        try:
            actions.explore(app, model, ANALYSES)
        except PruneError as error:
            return [gr.skip(), gr.HTML(states.failure_html(error), visible=True), *[gr.skip()] * 3]
        return _live(app, model)

    def ask_to_stop(model: str) -> list[Any]:
        record = runs.live_run(app.runs_dir, model)
        if record:
            actions.stop(record.path)
        return _live(app, model)

    def load_now(model: str) -> Iterator[list[Any]]:
        yield from _load(app, model)

    quiet = quietly()
    tab.select(show, app.url.model, seen + live, **quiet)
    app.url.model.change(show, app.url.model, seen + live, **quiet)
    app.url.tab.change(None, app.url.tab, timer, js=_ONLY_HERE, api_visibility="private")
    gr.on([opener.click, source.submit], open_model, source, [state, app.url.model], **quiet)
    analyse.click(start, app.url.model, live, **quiet)
    stop.click(ask_to_stop, app.url.model, live, **quiet)
    load.click(load_now, app.url.model, [state, card], **quiet)
    timer.tick(lambda model: _tick(app, model), app.url.model, seen[1:] + live, **quiet)


#: Leaving the tab stops the clock; coming back starts it again if a run is live.
_ONLY_HERE = """(tab) => tab === "model" ? undefined : ({__type__: "update", active: false})"""


def _describe(app: AppContext, model: str) -> list[Any]:
    """Source box, state, card and parts of `model`, from files alone."""
    try:
        card = app.known_card(model)
    except PruneError as error:
        return [model, gr.HTML(states.failure_html(error), visible=True), "", ""]
    if card is None:
        card = Card(model, model)
    return [model, gr.HTML("", visible=False), card_html(card), _parts(app, model)]


def _parts(app: AppContext, model: str) -> str:
    run = runs.latest(app.runs_dir, model, GROUPS)
    if run is None:
        return states.empty_html("Parameters by kind", "Analyse this model to see where its parameters sit.")
    try:
        return parts_html(parts_info(runs.graph_of(run)))
    except ArtifactError as error:
        return states.failure_html(error)


def _live(app: AppContext, model: str) -> list[Any]:
    """Analyses, progress, the two buttons and the clock."""
    records = runs.list_runs(app.runs_dir)
    table = analyses_html(analyses_info(records, model))
    live = runs.live_run(app.runs_dir, model)
    last = next((r for r in records if r.spec and r.spec.goal == "explore" and r.model == model), None)
    words = states.progress_html(live) if live else states.ended_html(last) if last else ""
    return [
        table,
        gr.HTML(words, visible=bool(words)),
        gr.Button(interactive=live is None),
        gr.Button(visible=live is not None),
        gr.Timer(active=live is not None),
    ]


def _tick(app: AppContext, model: str) -> list[Any]:
    """While a run is live only its progress changes; when it has ended, everything may."""
    live = _live(app, model)
    if runs.live_run(app.runs_dir, model):
        return [gr.skip()] * 3 + live
    return [*_describe(app, model)[1:], *live]


def _open(app: AppContext, given: str) -> Iterator[list[Any]]:
    """Check that there is such a model, then make it the one in the address."""
    if not given:
        yield [gr.HTML(states.error_html("No model was given.", f"Type {SOURCES}."), visible=True), gr.skip()]
        return
    try:
        if read_card(given) is None:
            for step in ticking(app.card, given):
                if isinstance(step, Done):
                    break
                wait = states.loading_html(f"Looking for {given}", step, "reading its description")
                yield [gr.HTML(wait, visible=True), gr.skip()]
    except PruneError as error:
        yield [gr.HTML(states.failure_html(error), visible=True), gr.skip()]
        return
    yield [gr.HTML("", visible=False), runs.source_key(given)]


def _load(app: AppContext, model: str) -> Iterator[list[Any]]:
    """Have the engine read the weights."""
    try:
        for step in ticking(app.load, model):
            if isinstance(step, Done):
                yield [gr.HTML("", visible=False), card_html(step.value)]
            else:
                yield [gr.HTML(states.loading_html("Reading the weights", step), visible=True), gr.skip()]
    except PruneError as error:
        yield [gr.HTML(states.failure_html(error), visible=True), gr.skip()]
