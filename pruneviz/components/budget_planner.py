"""A budget spread over measured curves, redrawn in the browser as it is dragged."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pruneviz.components.base import canvas


def budget_planner(**options: Any) -> gr.HTML:
    """Shows `payload(to_browser(...))` of `data/deciding.py`; an empty object hides it.

    Event `launch`, with `counts`: group id -> units that go, as JSON.
    """
    return canvas("budget_planner", **options)
