"""What the tabs are put together from."""

from __future__ import annotations

from typing import Any

import gradio as gr


def panel(elem_id: str, value: str = "", **options: Any) -> gr.HTML:
    """HTML written in Python, everything in it escaped; it listens to nothing."""
    return gr.HTML(value, elem_id=elem_id, apply_default_css=False, js_on_load=None, **options)


def intro(text: str) -> None:
    """The one sentence a tab begins with."""
    gr.HTML(f'<p class="pv-intro">{text}</p>', apply_default_css=False, js_on_load=None)


def quietly() -> dict[str, Any]:
    """Event options: no spinner over what stands there, and no public API endpoint."""
    return {"show_progress": "hidden", "api_visibility": "private"}
