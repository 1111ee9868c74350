"""The Sensitivity tab: what happens to perplexity when only one layer is pruned.

Element ids: sensitivity-kinds, sensitivity-ratios, sensitivity-criterion, sensitivity-tokens,
sensitivity-state, sensitivity-launch, sensitivity-content, sensitivity-method, sensitivity-scale,
sensitivity-chart, sensitivity-heads, sensitivity-table.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from core.errors import ArtifactError
from core.results.sensitivity import SENSITIVITY, read_sensitivity
from core.runs.events import metric_series
from core.spec.explore import ExploreSpec
from core.spec.fields import OPTIONS
from core.spec.run import RunSpec
from pruneviz.actions import launch as actions
from pruneviz.actions.forms import read
from pruneviz.components.base import panel
from pruneviz.components.plotly_figure import figure_payload, plotly_figure
from pruneviz.context import AppContext
from pruneviz.data import methods, runs
from pruneviz.data.runs import RunRecord
from pruneviz.data.tail import drawn, read_events
from pruneviz.figures.sensitivity import (
    SensitivityInfo,
    heads_figure,
    live_info,
    method_html,
    sensitivity_figure,
    sensitivity_info,
    table_html,
)
from pruneviz.tabs.analysis import AnalysisFrame
from pruneviz.tabs.deciding import build_deciding
from pruneviz.tabs.parts import QUIET, Parts, intro, number_box

INTRO = (
    "Some layers can be pruned more than others. Each point prunes a part of one layer alone and measures "
    "the whole model again: the higher it lies, the more that layer is needed."
)
SCALES = ["Automatic", "Linear", "Logarithmic"]
#: What of a layer is pruned -> its word in the form.
OF = {"attention": "Attention", "ffn": "FFN", "both": "Both at once", "head": "Each head alone"}


@dataclass(frozen=True)
class SensitivityPage(Parts):
    """What shows a scan."""

    method: gr.HTML
    lines: gr.Column
    chart: gr.HTML
    box: gr.Column
    heads: gr.HTML
    table: gr.HTML


def build_sensitivity_tab(app: AppContext) -> None:
    """Build the tab and wire it."""
    intro(INTRO)
    wire_deciding = build_deciding(app)
    form = _build_form()
    frame = AnalysisFrame(
        app, "sensitivity", "sensitivity", SENSITIVITY, ("groups", "scores", "sensitivity"),
        "No sensitivity scan of this model yet",
        "A scan prunes one layer after another, alone, and measures perplexity each time; minutes in all.",
        "Scan layers", again=True,
    )  # fmt: skip
    with frame.content:
        method = panel("sensitivity-method", styled=True)
        with gr.Column() as lines:
            scale = gr.Radio(
                SCALES, value=SCALES[0], label="Perplexity axis", elem_id="sensitivity-scale", container=False
            )
            chart = plotly_figure(elem_id="sensitivity-chart", min_height=430)
        with gr.Column(visible=False) as box:
            heads = plotly_figure(elem_id="sensitivity-heads", min_height=300)
        table = panel("sensitivity-table", styled=True)

    page = SensitivityPage(method, lines, chart, box, heads, table)

    def load(model: str, run_dir: Path, scaled: str) -> dict[Any, Any]:
        def draw() -> dict[str, Any]:
            return _drawn(sensitivity_info(read_sensitivity(run_dir)), scaled, run_dir.name)

        told = runs.changed(run_dir / SENSITIVITY)
        return page.filled(_shown(drawn(run_dir, f"sensitivity, {scaled}", told, False, draw)))

    def partial(model: str, record: RunRecord, scaled: str) -> dict[Any, Any]:
        info = live_info(metric_series(read_events(record.path)))
        return page.filled(_shown(_drawn(info, scaled, record.id))) if info.curves or info.heads else {}

    def rescale(model: str, run: str, scaled: str) -> Any:
        run_dir = frame.standing(model, run).run_dir
        try:
            return load(model, run_dir, scaled)[chart] if run_dir else gr.skip()
        except ArtifactError:  # damaged since the tab was opened, which then says it
            return gr.skip()

    frame.wire(load, page.all(), [scale], partial, ask=(functools.partial(spec_from, app), form))
    wire_deciding(frame.shown)
    scale.change(rescale, [app.url.model, app.url.run, scale], chart, **QUIET)


def _build_form() -> list[Any]:
    """What a scan asks for, in the order of `spec_from`."""
    start = ExploreSpec()

    def label_of(name: str) -> str:
        return OPTIONS[f"explore.{name}"].title

    with gr.Row(equal_height=True):
        kinds = gr.CheckboxGroup(
            list(OF.values()), value=[OF[kind] for kind in start.sensitivity_kinds],
            label=label_of("sensitivity_kinds"), elem_id="sensitivity-kinds", scale=4, min_width=420,
        )  # fmt: skip
        ratios = gr.Textbox(
            ", ".join(f"{ratio:g}" for ratio in start.sensitivity_ratios),
            label=label_of("sensitivity_ratios"), max_lines=1, placeholder="0.5, or 50 %", scale=2,
            elem_id="sensitivity-ratios", min_width=130,
        )  # fmt: skip
        criterion = gr.Dropdown(
            methods.ranking(), value=start.sensitivity_criterion, label=label_of("sensitivity_criterion"),
            scale=2, min_width=150, elem_id="sensitivity-criterion",
        )  # fmt: skip
        tokens = number_box(
            start.sensitivity_tokens, label=label_of("sensitivity_tokens"), scale=1, min_width=130,
            elem_id="sensitivity-tokens",
        )  # fmt: skip
    return [kinds, ratios, criterion, tokens]


def spec_from(
    app: AppContext, model: str, kinds: list[str], ratios: str, criterion: str, tokens: str
) -> RunSpec:
    """What the form asks for. Raises SpecError."""
    named = {word: kind for kind, word in OF.items()}
    settings = {
        "sensitivity_kinds": tuple(named[word] for word in kinds),
        "sensitivity_ratios": read("explore.sensitivity_ratios", ratios),
        "sensitivity_criterion": criterion,
        "sensitivity_tokens": read("explore.sensitivity_tokens", tokens),
    }
    return actions.explore_spec(app, model, ("groups", "sensitivity"), **settings)


def _drawn(info: SensitivityInfo, scaled: str, run: str) -> dict[str, Any]:
    """What the parts of the page show, and of those that may have nothing to show whether they have."""
    log = info.wide if scaled == SCALES[0] else scaled == SCALES[2]
    return {
        "method": method_html(info),
        "lines": bool(info.curves),
        "chart": figure_payload(sensitivity_figure(info, log), "sensitivity", run),
        "box": bool(info.heads),
        "heads": figure_payload(heads_figure(info), "sensitivity-heads", run),
        "table": table_html(info),
    }


def _shown(made: dict[str, Any]) -> dict[str, Any]:
    return {**made, **{part: gr.Column(visible=made[part]) for part in ("lines", "box")}}
