"""A model of the hub, on the Model tab: found by name, described before anything is loaded.

Element ids: model-find, model-search, model-offers, model-hub; none where the hub must not be asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from core.errors import PruneError
from pruneviz.actions.waiting import Given, ticking
from pruneviz.components.base import panel
from pruneviz.data import hub
from pruneviz.figures import states
from pruneviz.figures.model import card_html
from pruneviz.tabs.parts import QUIET, message


def build_hub_search(source: gr.Textbox) -> None:
    """Build and wire it; the chosen model's id goes into `source`, where it can be opened."""
    if hub.offline():
        return
    with gr.Row(equal_height=True, elem_classes="pv-field-row"):
        name = gr.Textbox(
            label="Or find one on the hub", info="a part of its name; the hub is asked once you press Search",
            elem_id="model-find", scale=5, max_lines=1,
        )  # fmt: skip
        go = gr.Button("Search", elem_id="model-search", scale=0, min_width=110)
    offers = gr.Dropdown(
        [], label="Found on the hub", elem_id="model-offers", filterable=True, value=None, visible=False,
        info="choose one to see what is known of it before it is loaded; Open, above, takes it",
    )  # fmt: skip
    said = panel("model-hub", visible=False)

    def search(typed: str) -> Iterator[dict[Any, Any]]:
        for words, found in _search(typed.strip()):
            shown = {} if found is None else {offers: gr.Dropdown(found, value=None, visible=bool(found))}
            yield {said: message(words), **shown}

    def describe(chosen: str | None) -> Iterator[dict[Any, Any]]:
        for words, model in _describe(chosen) if chosen else ():
            yield {said: message(words), **({source: model} if model else {})}

    gr.on([go.click, name.submit], search, name, [said, offers], **QUIET)
    offers.input(describe, offers, [said, source], **QUIET)


def _search(name: str) -> Iterator[tuple[str, list[tuple[str, str]] | None]]:
    """What to say, and what was found; None while nobody knows."""
    if not name:
        yield states.paragraph_html("Type a part of a model's name first."), None
        return
    try:
        for step in ticking(hub.search, name):
            if isinstance(step, Given):
                nothing = f"The hub has no model called {name} with weights as safetensors."
                yield "" if step.value else states.paragraph_html(nothing), step.value
            else:
                yield states.paragraph_html(f"Asking the hub, {step:.0f} s so far.", role="status"), None
    except PruneError as error:
        yield states.paragraph_html(error), []


def _describe(source: str) -> Iterator[tuple[str, str]]:
    """What to say of a model that was chosen, and its id once it is known."""
    try:
        for step in ticking(hub.describe, source):
            if isinstance(step, Given):
                yield card_html(step.value), source
            else:
                yield states.paragraph_html(f"Asking the hub about {source}.", role="status"), ""
    except PruneError as error:
        yield states.paragraph_html(error), source
