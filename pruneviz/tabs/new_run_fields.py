"""The fields of the New run form; what they do stands in `new_run.py`.

Element ids: new-name, new-method, new-about, new-slider, new-sparsity, new-kinds, new-layers,
new-calibration, new-samples, new-length, new-text, new-seed, new-units, new-ranking, new-training,
new-preset, new-steps, new-every-option, new-options, new-advanced, new-scope, new-reconstruct, new-multiple,
new-kind-sparsity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from pruneviz.actions.forms import KIND_WORDS, MULTIPLES, RECONSTRUCT_WORDS, SCOPE_WORDS, Form
from pruneviz.components.base import panel
from pruneviz.components.option_table import option_table
from pruneviz.context import memory
from pruneviz.data import methods


@dataclass(frozen=True)
class Fields:
    """The fields of the form.

    Attributes:
        by_name: the name in `Form` -> its field, in the order of `Form`.
        ranking: what says how much goes and of what, of no use where units were chosen by hand.
        training: preset, steps and options, of methods that train; table: the options one by one.
    """

    by_name: dict[str, Any]
    slider: gr.Slider
    about: gr.HTML
    ranking: gr.Column
    training: gr.Column
    table: gr.HTML

    def __getitem__(self, name: str) -> Any:
        return self.by_name[name]


def build_fields(start: Form) -> Fields:
    """Build them where the page stands."""
    with gr.Row():
        method = gr.Dropdown(methods.names(), value=start.method, label="Method", elem_id="new-method")
        name = gr.Textbox(value="", label="Name, if you like", max_lines=1, elem_id="new-name")
    about = panel("new-about", min_height=42)
    units = gr.Textbox(
        start.units, label="Units that go", info="chosen on the Structure tab, or written here", lines=3,
        max_lines=8, elem_id="new-units", placeholder="L03.query_head=0-3,7 L04.ffn_channel=5", visible=False,
    )  # fmt: skip
    fields: dict[str, Any] = {"method": method, "name": name}
    with gr.Column(elem_id="new-ranking") as ranking:
        slider, asked = _build_ranking(start)
        training, table, learned = _build_training()
    # Not in the column above: what is hidden there shows once the column does.
    own = memory("new-options-own")
    fields |= {**asked, **learned, "options": own}
    text = gr.Textbox(
        start.text,
        label="Text that measures perplexity",
        info="bundled, or a file",
        elem_id="new-text",
        max_lines=1,
    )
    fields.update(text=text, units=units, **_build_advanced(start))
    ordered = {name: fields[name] for name in Form.__dataclass_fields__}
    return Fields(ordered, slider, about, ranking, training, table)


def _build_training() -> tuple[gr.Column, gr.HTML, dict[str, Any]]:
    """What methods that train ask for besides; windows and their length stand with the calibration text."""
    with gr.Column(visible=False, elem_id="new-training") as box:
        with gr.Row():
            preset = gr.Dropdown(
                methods.presets(), value=None, label="Preset", elem_id="new-preset", filterable=False,
                info="fills in windows, their length, steps and options",
            )  # fmt: skip
            steps = gr.Number(
                None, label="Steps", info="of the training, in all", elem_id="new-steps", precision=0
            )
        with gr.Accordion("Every option of the training", open=False, elem_id="new-every-option"):
            table = option_table(elem_id="new-options")
    return box, table, {"preset": preset, "steps": steps}


def _build_advanced(start: Form) -> dict[str, Any]:
    """What most runs leave as it is."""
    with gr.Accordion("Advanced", open=False, elem_id="new-advanced"):
        with gr.Row():
            scope = gr.Dropdown(
                list(SCOPE_WORDS), value=start.scope, label="Who gives how much", elem_id="new-scope",
                info="every layer the same share, or more where it matters less",
            )  # fmt: skip
            reconstruct = gr.Dropdown(
                list(RECONSTRUCT_WORDS), value=start.reconstruct, label="Refit what stays",
                elem_id="new-reconstruct", info="on the calibration text, without training",
            )  # fmt: skip
        with gr.Row():
            multiple = gr.Dropdown(
                list(MULTIPLES), value=start.multiple, label="Widths in multiples of", elem_id="new-multiple",
                info="round widths run faster on GPUs", allow_custom_value=True,
            )  # fmt: skip
            own = gr.Textbox(
                start.kind_sparsity, label="A target of its own for a kind", elem_id="new-kind-sparsity",
                info="in the place of the sparsity above", placeholder="ffn_channel=0.3", max_lines=1,
            )  # fmt: skip
    return {"scope": scope, "reconstruct": reconstruct, "multiple": multiple, "kind_sparsity": own}


def _build_ranking(start: Form) -> tuple[gr.Slider, dict[str, Any]]:
    with gr.Row():
        slider = gr.Slider(
            0, 0.95, 0.2, step=0.01, label="Sparsity", elem_id="new-slider", scale=3, buttons=[],
            info="Share of the parameters in the chosen blocks that goes.",
        )  # fmt: skip
        sparsity = gr.Textbox(start.sparsity, label="As a number", elem_id="new-sparsity", max_lines=1)
    kinds = gr.CheckboxGroup(
        list(KIND_WORDS), value=list(start.kinds), label="What may go", elem_id="new-kinds"
    )
    with gr.Row():
        layers = gr.Textbox(
            value="",
            label="Layers",
            placeholder="all",
            info="first:last, last not included",
            elem_id="new-layers",
            max_lines=1,
        )
        seed = gr.Number(
            start.seed, label="Seed", info="of every random choice", elem_id="new-seed", precision=0
        )
    with gr.Row():
        calibration = gr.Textbox(
            start.calibration, label="Calibration text", info="bundled, or a file", elem_id="new-calibration",
            max_lines=1,
        )  # fmt: skip
        samples = gr.Number(
            start.samples, label="Windows", info="of this text", elem_id="new-samples", precision=0
        )
        length = gr.Number(
            start.length, label="Tokens", info="in each window", elem_id="new-length", precision=0
        )
    return slider, {
        "sparsity": sparsity, "kinds": kinds, "layers": layers, "seed": seed, "calibration": calibration,
        "samples": samples, "length": length,
    }  # fmt: skip
