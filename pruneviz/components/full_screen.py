"""The button that shows a tab in full screen; what hides the rest of the page is in `theme.css`."""

from __future__ import annotations

import gradio as gr

from pruneviz.components.base import canvas


def full_screen(elem_id: str) -> gr.HTML:
    """The button. It keeps all that was chosen; Escape and going to another tab leave full screen."""
    return canvas("full_screen", "full_compare", elem_id=elem_id)
