"""The layer x kind map and the grid of one group's units."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pruneviz.components.base import canvas


def structure_map(**options: Any) -> gr.HTML:
    """Shows `payload(MapInfo.to_browser(selected))`. Event `pick`, with `group` and `unit` (always 0)."""
    return canvas("structure_map", **options)


def unit_picker(**options: Any) -> gr.HTML:
    """Shows `payload({"group", "units", "unit", "word"})`. Event `pick`, with `group` and `unit`."""
    return canvas("unit_picker", **options)
