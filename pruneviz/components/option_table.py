"""A method's own options as a table with a field for each."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pruneviz.components.base import canvas


def option_table(**options: Any) -> gr.HTML:
    """Shows `payload(to_browser(...))` of `figures/training_options.py`.

    Event `set`, with `options`: JSON of what differs from the preset, empty if nothing does.
    """
    return canvas("option_table", **options)
