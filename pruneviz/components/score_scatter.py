"""Every unit by two criteria; a box or lasso chooses units, in the browser."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pruneviz.components.base import canvas


def score_scatter(**options: Any) -> gr.HTML:
    """Shows `payload(PairInfo.to_browser())`. Event `take`, with `removed`: group id -> chosen units."""
    return canvas("score_scatter", **options)
