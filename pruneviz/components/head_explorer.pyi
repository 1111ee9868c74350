"""Similarity graph, divergence matrix, thumbnails and Algorithm 1, all redrawn in the browser as tau moves."""

from __future__ import annotations

from typing import Any

from pruneviz.components.base import Canvas

#: The address follows the slider and the chosen layer without asking the server.
TAU_TO_ADDRESS = '() => document.querySelector("#heads-explorer [data-tau]").dataset.tau'
LAYER_TO_ADDRESS = '() => document.querySelector("#heads-explorer [data-layer]:not(button)").dataset.layer'

from gradio.events import Dependency

class HeadExplorer(Canvas):
    """Shows `HeadsInfo.to_browser()`. Reads tau and layer from the address when data comes in.

    Events, both to be listened to in JavaScript only: `tau`, `layer`.
    """

    def __init__(self, value: Any = None, **options: Any) -> None:
        super().__init__(("head_maths", "head_graph", "divergence_matrix", "head_explorer"), value, **options)
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component