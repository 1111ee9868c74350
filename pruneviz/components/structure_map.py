"""The layer x kind map and the grid of one group's units."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pruneviz.components.base import canvas, script, sheet


def structure_map(**options: Any) -> gr.HTML:
    """Shows `payload(MapInfo.to_browser(selected))`. Event `pick`, with `group` and `unit` (always 0)."""
    return canvas("saving", "structure_map", **options)


def unit_picker(**options: Any) -> gr.HTML:
    """Shows `payload({"group", "units", "unit", "word", "chosen", "fixed"})`; `unit` and `fixed` may be None.

    Events: `pick`, with `group` and `unit`; `choose`, with `group` and all its chosen `units` as text.
    """
    return canvas("unit_picker", **options)


def coupled_drawing(**options: Any) -> gr.HTML:
    """Shows what `structure_svg` returns.

    Event `pair`, with `first` and `second`: the parameters whose boxes were chosen, or empty texts.
    """
    return _written("saving", "coupled_structure", **options)


def buttons(**options: Any) -> gr.HTML:
    """HTML written in Python, everything in it escaped; its `<button data-do="NAME">` trigger event NAME."""
    return _written("buttons", **options)


def _written(*names: str, **options: Any) -> gr.HTML:
    return gr.HTML(css_template=sheet(), js_on_load=script(*names), apply_default_css=False, **options)
