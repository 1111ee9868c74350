"""The fields of the New run form; what they do stands in `new_run.py`.

A field of the spec has the element id `new-` and its option on the command line: new-method, new-sparsity,
new-kinds, … The others: new-effort, new-about, new-slider, new-ranking, new-training, new-preset, new-steps,
new-every-option, new-options, new-recipe, new-advanced.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import gradio as gr

from core.option import Option, options_of
from core.spec.efforts import EFFORTS
from core.spec.fields import OPTIONS
from core.spec.nuteprune import Settings
from core.spec.recommended import RECOMMENDED
from core.spec.recover import PRESETS as RECIPES
from core.spec.run import RunSpec
from pruneviz.actions.forms import FIELDS, OWN, REST, Form, form_from
from pruneviz.components.base import panel
from pruneviz.components.option_table import option_table
from pruneviz.context import memory
from pruneviz.data import methods
from pruneviz.data.runs import RunRecord
from pruneviz.tabs.parts import NUMBER, number_box


@dataclass(frozen=True)
class Fields:
    """The fields of the form.

    Attributes:
        by_path: path in a form -> its field, in the order of `FIELDS`.
        ranking: what says how much goes and of what, of no use where units were chosen by hand.
        training: preset and steps, of methods that train; every: what shows `table`, a method's own options
            one by one.
        effort: how long it may take, which fills in others.
    """

    by_path: dict[str, Any]
    effort: gr.Radio
    slider: gr.Slider
    about: gr.HTML
    ranking: gr.Column
    training: gr.Column
    every: gr.Accordion
    table: gr.HTML

    def __getitem__(self, path: str) -> Any:
        return self.by_path[path]


@dataclass(frozen=True)
class NewRun:
    """The form; `launched` holds the id of what it started."""

    box: gr.Accordion
    fields: Fields
    launched: gr.Textbox

    def filled(self) -> list[Any]:
        """What `filled_from` fills."""
        return [self.box, *self.fields.by_path.values(), self.fields.slider]

    def filled_from(self, record: RunRecord | None) -> list[Any]:
        """The open form with what another run was asked to do."""
        if record is None or record.spec is None:
            return [gr.skip()] * len(self.filled())
        return self.filled_with(record.spec)

    def filled_with(self, spec: RunSpec) -> list[Any]:
        """The open form with what a spec asks for."""
        form = form_from(spec)
        held = [form[path] for path in FIELDS]
        return [gr.Accordion(open=True), *held, spec.prune.sparsity]


class Builder:
    """Builds the field of an option where the page stands, with the option's own words."""

    def __init__(self, start: Form) -> None:
        self.start = start
        self.built: dict[str, Any] = {}

    def row(self, *paths: str) -> None:
        """Some fields side by side."""
        with gr.Row():
            for path in paths:
                self.field(path)

    def field(self, path: str, **more: Any) -> Any:
        """One field."""
        option = OPTIONS[path]
        words = {"label": option.title, "info": option.help, "value": self.start[path]}
        component, kind = _kind(option)
        elem_id = f"new-{option.flag.removeprefix('--').partition('/')[0]}"
        # The words of a checkbox stand beside it; alone it takes no least width.
        with gr.Column(min_width=260) if option.kind is bool else nullcontext():
            self.built[path] = component(**{**words, **kind, "elem_id": elem_id, **more})
        return self.built[path]

    def others(self) -> None:
        """Every field that was not built yet, two in a row."""
        left = [path for path in FIELDS if path in OPTIONS and path not in (*self.built, OWN)]
        for first in range(0, len(left), 2):
            self.row(*left[first : first + 2])


def _kind(option: Option) -> tuple[Any, dict[str, Any]]:
    """The component that suits an option, and what it needs to know."""
    if option.choices:
        several = option.kind is tuple
        choices = [(word, value) for value, word in option.choices.items()]
        return gr.CheckboxGroup if several else gr.Dropdown, {"choices": choices}
    if option.examples:
        return gr.Dropdown, {"choices": list(map(str, option.examples)), "allow_custom_value": True}
    if option.kind is bool:
        return gr.Checkbox, {}
    # An emptied number box of Gradio sends a zero, and one with letters nothing: this one what was typed.
    number = {"elem_classes": NUMBER} if option.kind is int else {}
    return gr.Textbox, {
        "max_lines": 1,
        "placeholder": option.default_text if option.optional else None,
        **number,
    }


def build_fields(start: Form) -> Fields:
    """Build them where the page stands."""
    form = Builder(start)
    effort = gr.Radio(
        [(each.title, name) for name, each in EFFORTS.items()],
        value=RECOMMENDED,
        label="How long may it take?",
        info="Fills in what follows, which can be changed then. Of the demo model, on two cores: "
        + "; ".join(each.about for each in EFFORTS.values()),
        elem_id="new-effort",
    )
    with gr.Row():
        with gr.Column(min_width=160):
            method = OPTIONS["prune.method"]
            form.built["prune.method"] = gr.Dropdown(
                methods.names(), value=start["prune.method"], label=method.title, elem_id="new-method"
            )
        with gr.Column(min_width=160):
            form.field("name", info=None)
    about = panel("new-about", min_height=42)
    units = "L03.query_head=0-3,7 L04.ffn_channel=5"
    form.field("prune.units", lines=3, max_lines=8, placeholder=units, visible=False)
    with gr.Column(elem_id="new-ranking") as ranking:
        slider = _build_ranking(form)
        training = _build_training(form)
        words: dict[str, Any] = {"open": False, "visible": False, "elem_id": "new-every-option"}
        with gr.Accordion("Every option of the method", **words) as every:
            table = option_table(elem_id="new-options")
    _build_recovery(form)
    form.row("evaluate.text", "evaluate.also", "evaluate.protocol")
    # Not in the column above: what is hidden there shows once the column does.
    form.built[OWN], form.built[REST] = memory("new-options-own"), memory("new-rest")
    with gr.Accordion("Advanced", open=False, elem_id="new-advanced"):
        form.others()
    return Fields(
        {path: form.built[path] for path in FIELDS}, effort, slider, about, ranking, training, every, table
    )


def _build_ranking(form: Builder) -> gr.Slider:
    with gr.Row():
        sparsity = OPTIONS["prune.sparsity"]
        words: dict[str, Any] = {"label": sparsity.title, "info": sparsity.help, "elem_id": "new-slider"}
        slider = gr.Slider(0, 0.95, sparsity.value, step=0.01, scale=3, buttons=[], **words)
        form.field("prune.sparsity", label="As a number", info=None)
    form.field("prune.target", placeholder="params=100M, size=8GiB@q4_0, macs=-30%, latency=30ms@1x128")
    form.field("prune.kinds")
    form.row("prune.layers", "seed")
    form.row("calibration.name", "calibration.samples", "calibration.length")
    return slider


def _build_recovery(form: Builder) -> None:
    """How what is left is trained; the rest of a recipe has no fields, but stands in the command."""
    with gr.Row():
        form.field("recover.method")
        form.built["recipe"] = gr.Dropdown(
            list(RECIPES), value=None, label="Recipe of that training", elem_id="new-recipe",
            filterable=False,
            info="minutes, hour: taught by the dense model; demo: LoRA, 20 minutes on two cores; paper: "
            "LLM-Pruner's, two epochs of Alpaca",
        )  # fmt: skip
        form.field("recover.data")


def _build_training(form: Builder) -> gr.Column:
    """What methods that train ask for besides; windows and their length stand with the calibration text."""
    with gr.Column(visible=False, elem_id="new-training") as box, gr.Row():
        form.built["preset"] = gr.Dropdown(
            methods.presets(), value=None, label="Preset", elem_id="new-preset", filterable=False,
            info="fills in windows, steps and options; a paper's also text, kinds, target, fine-tuning",
        )  # fmt: skip
        form.built["steps"] = number_box(
            "", label="Steps", info=options_of(Settings)["steps"].help, elem_id="new-steps"
        )
    return box
