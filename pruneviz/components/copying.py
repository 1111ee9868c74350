"""HTML written in Python in which a button copies what its `data-copy` holds."""

from __future__ import annotations

import gradio as gr

from pruneviz.components.base import script


def copying(elem_id: str, value: str = "") -> gr.HTML:
    """The element; `value` is escaped HTML."""
    return gr.HTML(value, elem_id=elem_id, apply_default_css=False, js_on_load=script("copying"))
