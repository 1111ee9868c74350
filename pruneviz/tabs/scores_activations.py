"""How large the features are that were scored: a part of the Scores tab.

Element ids: scores-activations-beside, scores-activations-about, scores-activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from core.results.activations import ACTIVATIONS, read_activations
from pruneviz.components.base import panel
from pruneviz.components.plotly_figure import figure_payload, plotly_figure
from pruneviz.data import runs
from pruneviz.figures import states
from pruneviz.figures.activations import about_html, activations_figure, activations_info
from pruneviz.tabs.parts import Parts

_TEXT = (
    "What a matrix adds is its weights times the features it reads, so a criterion that reads weights alone "
    "misjudges most where features are large. The output-approximation paper finds larger ones in Llama-7B "
    "than in GPT-2 (Figure 5)."
)
NOTHING = "The run did not look at features"
WHAT_TO_DO = (
    "They are measured in the pass that reads the calibration text: score units with a criterion that needs "
    "text, such as second_moment or wanda."
)
ALONE = "No other model"


@dataclass(frozen=True)
class ActivationsPart(Parts):
    """Everything that shows sizes of features."""

    beside: gr.Dropdown
    about: gr.HTML
    chart: gr.HTML


def build_activations() -> ActivationsPart:
    """Build this part of the tab."""
    gr.HTML(f"<h3>How large are the features?</h3>{states.paragraph_html(_TEXT)}", apply_default_css=False)
    beside = gr.Dropdown(
        [(ALONE, "")], value="", label="Beside the features of", elem_id="scores-activations-beside",
        min_width=260,
    )  # fmt: skip
    about = panel("scores-activations-about", styled=True)
    return ActivationsPart(beside, about, plotly_figure(elem_id="scores-activations", min_height=430))


def show_activations(runs_dir: Path, run_dir: Path, beside: str) -> dict[str, Any]:
    """What `ActivationsPart` shows of a run; `beside` is the id of another one, or empty.

    Raises:
        ArtifactError: the file is damaged.
    """
    others = {
        record.id: f"{_short(record.model)} · {record.id}"
        for record in runs.list_runs(runs_dir)
        if record.has(ACTIVATIONS) and record.path != run_dir
    }
    chosen = beside if beside in others else ""
    options = [(ALONE, ""), *((title, run) for run, title in others.items())]
    dropdown = gr.Dropdown(options, value=chosen, visible=bool(others))
    if not (run_dir / ACTIVATIONS).is_file():
        return {
            "beside": gr.Dropdown(options, value=chosen, visible=False),
            "about": states.empty_html(NOTHING, WHAT_TO_DO),
            "chart": gr.HTML(visible=False),
        }
    own = _short(runs.read_run(run_dir).model)
    records = {own: read_activations(run_dir)}
    if chosen:
        other = _short(runs.read_run(runs_dir / chosen).model)
        records[other if other != own else f"{other} · {chosen}"] = read_activations(runs_dir / chosen)
    info, named = activations_info(records), ("activations", run_dir.name, *([chosen] if chosen else []))
    return {
        "beside": dropdown,
        "about": about_html(info),
        "chart": gr.HTML(figure_payload(activations_figure(info), *named), visible=not info.empty),
    }


def _short(source: str) -> str:
    """A model's name for a legend: the last part of a path."""
    return Path(source).name or source
