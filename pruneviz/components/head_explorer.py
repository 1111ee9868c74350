"""Similarity graph, divergence matrix, thumbnails and Algorithm 1, redrawn in the browser as tau moves."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pruneviz.components.base import canvas

#: The address follows the slider and the chosen layer without asking the server.
TAU_TO_ADDRESS = '() => document.querySelector("#heads-explorer [data-tau]").dataset.tau'
LAYER_TO_ADDRESS = '() => document.querySelector("#heads-explorer [data-layer]:not(button)").dataset.layer'


def head_explorer(**options: Any) -> gr.HTML:
    """Shows `payload(HeadsInfo.to_browser(tau))`. Reads tau and layer from the address when data comes in.

    Events, both to be listened to in JavaScript only: `tau`, `layer`.
    """
    return canvas("head_maths", "head_graph", "divergence_matrix", "head_explorer", **options)
