"""The training in a run's details: where it is, its curves, its masks and what it costs.

Element ids: training, training-facts, training-curves, training-about-masks, training-masks, training-cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from core.errors import ArtifactError
from core.methods import method_of, trained_by
from core.results.masks import MASKS, read_masks
from core.runs.events import Event
from pruneviz.components.base import panel
from pruneviz.components.plotly_figure import figure_payload, plotly_figure
from pruneviz.data.runs import RunRecord
from pruneviz.data.tail import drawn
from pruneviz.figures import states
from pruneviz.figures.mask_state import mask_figure, mask_html, mask_info
from pruneviz.figures.training import cost_html, training_figure, training_html, training_info
from pruneviz.tabs.parts import Parts


@dataclass(frozen=True)
class TrainingView(Parts):
    """What shows a training."""

    box: gr.Column
    facts: gr.HTML
    curves: gr.HTML
    masks_box: gr.Column
    about_masks: gr.HTML
    masks: gr.HTML
    cost: gr.HTML


def build_training() -> TrainingView:
    """Build it, hidden."""
    with gr.Column(visible=False, elem_id="training") as box:
        facts = panel("training-facts", styled=True)
        curves = plotly_figure(elem_id="training-curves")
        cost = panel("training-cost", styled=True)
    with gr.Column(visible=False) as masks_box:
        about = panel("training-about-masks", styled=True)
        masks = plotly_figure(elem_id="training-masks")
    return TrainingView(box, facts, curves, masks_box, about, masks, cost)


def training_updates(record: RunRecord | None, events: list[Event]) -> dict[str, Any]:
    """What `TrainingView` shows of a run; nothing where nothing is trained, or not yet."""
    spec = record.spec if record else None
    method = method_of(spec) if spec else None
    if record is None or spec is None or method is None:
        return _nothing()
    steps = int(spec.prune.options.get("steps", method.options["steps"].value))
    processes = trained_by(spec)
    shown = drawn(
        record.path,
        f"training {steps}",
        len(events),
        record.live,
        lambda: _drawn(record.id, events, steps, processes),
    )
    if shown is None:
        return _nothing()
    facts, curves, cost = shown
    return {
        "box": gr.Column(visible=True), "facts": facts, "curves": curves, "cost": cost, **_masks(record),
    }  # fmt: skip


def _drawn(run: str, events: list[Event], steps: int, processes: int) -> tuple[str, str, str] | None:
    """Facts, curves and cost; None while nothing was told."""
    info = training_info(events, steps, processes)
    if info.empty:
        return None
    return training_html(info), figure_payload(training_figure(info), "training", run), cost_html(info)


def _nothing() -> dict[str, Any]:
    return {"box": gr.Column(visible=False), "masks_box": gr.Column(visible=False)}


def _masks(record: RunRecord) -> dict[str, Any]:
    if not record.has(MASKS):
        return {"masks_box": gr.Column(visible=False)}
    try:
        about, figure = _drawn_masks(record.path, (record.path / MASKS).stat().st_mtime_ns)
    except ArtifactError as error:
        return {"masks_box": gr.Column(visible=True), "about_masks": states.notes_html(error)}
    return {"masks_box": gr.Column(visible=True), "about_masks": about, "masks": figure}


@lru_cache(maxsize=16)
def _drawn_masks(run_dir: Path, changed: int) -> tuple[str, str]:
    """What is said of the masks and their figure, until the file changes. Raises ArtifactError."""
    info = mask_info(read_masks(run_dir))
    return mask_html(info), figure_payload(mask_figure(info), "masks", run_dir.name)
