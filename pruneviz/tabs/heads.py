"""The Heads tab: which attention heads say the same thing.

Element ids: heads-state, heads-launch, heads-content, heads-explorer, heads-tau, heads-tau-number,
heads-layer, heads-pair, heads-candidates, heads-take, heads-take-all, heads-source, heads-text, heads-attend,
heads-stop, heads-attention-state, heads-attention, heads-attention-cell, heads-pinned. Thumbnails are
`#heads-explorer .pv-thumb[data-layer="4"]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from core.errors import PruneError
from core.results.similarity import SIMILARITY, read_similarity
from core.runs.artifacts import GROUPS
from pruneviz.actions.waiting import Given, ticking
from pruneviz.components.base import panel, payload
from pruneviz.components.head_explorer import (
    LAYER_TO_ADDRESS,
    PINNED,
    TAU_TO_ADDRESS,
    attention_maps,
    head_explorer,
)
from pruneviz.context import DEFAULT_TAU, AppContext, memory
from pruneviz.data import runs
from pruneviz.figures import states
from pruneviz.figures.heads import heads_info, source_html
from pruneviz.tabs.analysis import AnalysisFrame
from pruneviz.tabs.parts import QUIET, into_plan, intro, message

INTRO = (
    "Two heads that attend to the same words do the same work twice. Move τ to decide how alike is alike "
    "enough, and see which heads Algorithm 1 would remove."
)
TEXT = "When Mary and John went to the store, John gave a drink to Mary."


def build_heads_tab(app: AppContext) -> None:
    """Build the tab and wire it."""
    intro(INTRO)
    frame = AnalysisFrame(
        app, "heads", "similarity", SIMILARITY, ("groups", "similarity"),
        "No similarities of this model yet",
        "The model reads a calibration text once; every pair of heads is compared by what they attend to.",
        "Compare heads",
    )  # fmt: skip
    with frame.content:
        explorer = head_explorer(elem_id="heads-explorer")
        source = panel("heads-source", styled=True)
        with gr.Row(equal_height=True, elem_classes="pv-field-row"):
            text = gr.Textbox(
                TEXT, label="What do the two pinned heads attend to?", lines=2, max_lines=4, scale=5,
                info="On a text of yours; click two heads above to pin others.", elem_id="heads-text",
            )  # fmt: skip
            attend = gr.Button("Show attention", elem_id="heads-attend", scale=0)
            stop = gr.Button("Stop", elem_id="heads-stop", scale=0, min_width=90)
        state = panel("heads-attention-state", styled=True, visible=False)
        with gr.Column(visible=False) as box:
            maps = attention_maps(elem_id="heads-attention", min_height=300)
        pinned = memory("heads-pinned")

    def load(model: str, run_dir: Path) -> dict[Any, Any]:
        groups = app.latest(model, GROUPS)
        info = heads_info(read_similarity(run_dir), runs.graph_of(groups) if groups else None)
        return {explorer: payload(info.to_browser(float(DEFAULT_TAU))), source: source_html(info)}

    frame.wire(load, [explorer, source])
    explorer.tau(None, None, app.url.tau, js=TAU_TO_ADDRESS, api_visibility="private")
    explorer.pin(None, None, pinned, js=PINNED, api_visibility="private")
    into_plan(explorer, app)

    def look(model: str, heads: str, words: str) -> Iterator[dict[Any, Any]]:
        for said, answer in _attention(app, model, heads, words):
            shown = {box: gr.Column(visible=True), maps: answer} if answer else {}
            yield {state: message(said), **shown}

    gr.on([attend.click, text.submit], look, [app.url.model, pinned, text], [state, box, maps], **QUIET)
    stop.click(lambda: app.stop_answers(), None, None, **QUIET)
    explorer.layer(None, None, app.url.layer, js=LAYER_TO_ADDRESS, api_visibility="private")


def _attention(app: AppContext, model: str, pinned: str, text: str) -> Iterator[tuple[str, str]]:
    """What to say meanwhile and, in the end, what the pinned heads attend to, from the engine."""
    layer, _, heads = (pinned or "").partition(":")
    wanted = [int(head) for head in heads.split(",") if head.isdecimal()]
    if not text.strip() or not layer.isdecimal() or not wanted:
        yield (
            states.error_html(
                "Type a few words first." if wanted else "Pin two heads first.", title=states.REFUSED
            ),
            "",
        )
        return
    try:
        for step in ticking(app.engine.attention, model, text, int(layer), wanted):
            if isinstance(step, Given):
                yield "", payload({**step.value, "layer": int(layer), "heads": wanted})
            else:
                yield states.loading_html("Asking the model; the first time it has to be read", step), ""
    except PruneError as error:
        yield states.failure_html(error), ""
