"""Similarity graph, divergence matrix, thumbnails and Algorithm 1, redrawn in the browser as tau moves."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pruneviz.components.base import canvas

#: The address follows the slider and the chosen layer without asking the server.
TAU_TO_ADDRESS = '() => document.querySelector("#heads-explorer [data-tau]").dataset.tau'
PINNED = '() => document.querySelector("#heads-explorer [data-pinned]").dataset.pinned'
LAYER_TO_ADDRESS = '() => document.querySelector("#heads-explorer [data-layer]:not(button)").dataset.layer'


def head_explorer(**options: Any) -> gr.HTML:
    """Shows `payload(HeadsInfo.to_browser(tau))`. Reads tau and layer from the address when data comes in.

    Events, to be listened to in JavaScript only: `tau`, `layer`, `pin`. Event `take`, with `removed`: group
    id -> the heads that Algorithm 1 would remove.
    """
    return canvas("saving", "head_maths", "head_graph", "divergence_matrix", "head_explorer", **options)


def attention_maps(**options: Any) -> gr.HTML:
    """Shows `payload({"layer", "heads", "tokens", "maps", "cut"})`, as `Engine.attention` gives them."""
    return canvas("saving", "attention_maps", **options)
