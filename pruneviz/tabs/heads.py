"""The Heads tab: which attention heads say the same thing.

Element ids: heads-state, heads-launch, heads-content, heads-explorer, heads-tau, heads-tau-number,
heads-layer, heads-pair, heads-candidates, heads-source. Thumbnails are
`#heads-explorer .pv-thumb[data-layer="4"]`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from core import artifacts
from pruneviz import runs
from pruneviz.components.base import panel, payload
from pruneviz.components.head_explorer import LAYER_TO_ADDRESS, TAU_TO_ADDRESS, head_explorer
from pruneviz.context import DEFAULT_TAU, AppContext
from pruneviz.figures.heads import heads_info, source_html
from pruneviz.tabs.analysis import AnalysisFrame, cached_graph

INTRO = (
    "Two heads that attend to the same words do the same work twice. Move τ to decide how alike is alike "
    "enough, and see which heads Algorithm 1 would remove."
)


def build_heads_tab(app: AppContext) -> None:
    """Build the tab and wire it."""
    gr.HTML(f'<p class="pv-intro">{INTRO}</p>')
    frame = AnalysisFrame(
        app, "heads", "similarity", artifacts.SIMILARITY, ("groups", "similarity"),
        "No similarities of this model yet",
        "The model reads a calibration text once; every pair of heads is compared by what they attend to.",
        "Compare heads",
    )  # fmt: skip
    with frame.content:
        explorer = head_explorer(elem_id="heads-explorer")
        source = panel(elem_id="heads-source")

    def load(model: str, run_dir: Path) -> list[Any]:
        groups = runs.latest(app.runs_dir, model, artifacts.GROUPS)
        info = heads_info(artifacts.read_similarity(run_dir), cached_graph(groups) if groups else None)
        return [payload(info.to_browser(float(DEFAULT_TAU))), source_html(info)]

    frame.wire(load, [explorer, source])
    explorer.tau(None, None, app.url.tau, js=TAU_TO_ADDRESS, api_visibility="private")
    explorer.layer(None, None, app.url.layer, js=LAYER_TO_ADDRESS, api_visibility="private")
