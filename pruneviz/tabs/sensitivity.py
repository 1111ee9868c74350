"""The Sensitivity tab."""

from __future__ import annotations

import gradio as gr

from pruneviz.context import AppContext


def build_sensitivity_tab(app: AppContext) -> None:
    """Build the tab."""
    gr.HTML('<p class="pv-intro">Sensitivity</p>')
