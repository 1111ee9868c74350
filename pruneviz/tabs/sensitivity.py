"""The Sensitivity tab: what happens to perplexity when only one layer is pruned.

Element ids: sensitivity-state, sensitivity-launch, sensitivity-content, sensitivity-scale, sensitivity-chart,
sensitivity-method, sensitivity-table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from core import artifacts
from core.events import metric_series
from pruneviz import runs
from pruneviz.components.base import panel
from pruneviz.components.plotly_figure import figure_payload, plotly_figure
from pruneviz.context import AppContext
from pruneviz.figures.sensitivity import (
    SensitivityInfo,
    live_info,
    method_html,
    sensitivity_figure,
    sensitivity_info,
    table_html,
)
from pruneviz.runs import RunRecord
from pruneviz.tabs.analysis import QUIET, AnalysisFrame

INTRO = (
    "Layers are not equally patient. Each point prunes one layer's attention or FFN alone and measures the "
    "whole model again: the higher it lies, the more that layer is needed."
)
SCALES = ["Automatic", "Linear", "Logarithmic"]


def build_sensitivity_tab(app: AppContext) -> None:
    """Build the tab and wire it."""
    gr.HTML(f'<p class="pv-intro">{INTRO}</p>')
    frame = AnalysisFrame(
        app, "sensitivity", "sensitivity", artifacts.SENSITIVITY, ("groups", "scores", "sensitivity"),
        "No sensitivity scan of this model yet",
        "A scan prunes one layer after another, alone, and measures perplexity each time; minutes in all.",
        "Scan layers",
    )  # fmt: skip
    with frame.content:
        method = panel(elem_id="sensitivity-method")
        scale = gr.Radio(
            SCALES, value=SCALES[0], label="Perplexity axis", elem_id="sensitivity-scale", container=False
        )
        chart = plotly_figure(elem_id="sensitivity-chart", min_height=430)
        table = panel(elem_id="sensitivity-table")

    def load(model: str, run_dir: Path, scaled: str) -> list[Any]:
        return _shown(sensitivity_info(artifacts.read_sensitivity(run_dir)), scaled)

    def partial(model: str, record: RunRecord, scaled: str) -> list[Any]:
        info = live_info(metric_series(runs.read_events(record.path)))
        return _shown(info, scaled) if info.curves else []

    def rescale(model: str, scaled: str) -> Any:
        run_dir = runs.latest(app.runs_dir, model, artifacts.SENSITIVITY)
        return load(model, run_dir, scaled)[1] if run_dir else gr.skip()

    frame.wire(load, [method, chart, table], [scale], partial)
    scale.change(rescale, [app.url.model, scale], chart, **QUIET)


def _shown(info: SensitivityInfo, scaled: str) -> list[Any]:
    log = info.wide if scaled == SCALES[0] else scaled == SCALES[2]
    return [method_html(info), figure_payload(sensitivity_figure(info, log)), table_html(info)]
