from __future__ import annotations

import re
from dataclasses import replace

import gradio as gr
import pytest

from core.errors import PruneError, SpecError, UnknownNameError
from core.methods import with_preset
from core.runs.command_line import command_line
from core.spec.calibration import DataSpec
from core.spec.choices import RECHOOSING, RECONSTRUCTIONS
from core.spec.efforts import EFFORTS, with_effort
from core.spec.evaluate import EvalSpec
from core.spec.fields import OPTIONS
from core.spec.model import ModelSpec
from core.spec.nuteprune_presets import PRESETS
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec, recover_preset
from core.spec.run import RunSpec
from pruneviz.actions.forms import (
    FIELDS,
    OWN,
    REST,
    effort_start,
    form_from,
    form_of,
    recipe_start,
    spec_from,
    training_start,
)
from pruneviz.tabs.new_run_fields import _kind

MODEL = ModelSpec("demo")
START = form_from(RunSpec())


def test_the_empty_form_asks_for_the_defaults():
    assert tuple(START) == FIELDS and not [path for path in FIELDS if path.startswith("export.")]
    assert spec_from(MODEL, START) == RunSpec(goal="prune", model=MODEL)


def test_units_chosen_by_hand_are_the_whole_plan():
    form = {
        **START,
        "prune.method": "manual",
        "prune.units": "L01.ffn_channel=3-4\nL00.query_head=0",
        "prune.sparsity": "nonsense",
        "prune.kinds": [],
    }
    spec = spec_from(MODEL, form)
    assert spec.prune == PruneSpec("manual", units={"L00.query_head": (0,), "L01.ffn_channel": (3, 4)})
    assert form_from(spec)["prune.units"] == "L00.query_head=0 L01.ffn_channel=3-4"
    with pytest.raises(SpecError, match="No unit is chosen; choose some on the Structure tab"):
        spec_from(MODEL, {**START, "prune.method": "manual", "prune.units": " "})


@pytest.mark.parametrize("how", RECONSTRUCTIONS)
def test_a_cloned_run_asks_for_the_same(how):
    spec = RunSpec(
        name="mine",
        seed=7,
        calibration=DataSpec("bundled", 8, 64),
        prune=PruneSpec(
            "l2",
            0.35123456789,
            "standardised",
            ("kv_group", "ffn_channel"),
            "4:30",
            reconstruct=how,
            multiple=64,
            max_share=1.0 if how in RECHOOSING else 0.5,
            kind_sparsity={"ffn_channel": 0.41234567891},
        ),
        evaluate=EvalSpec(text="/tmp/text.txt"),
    )
    assert spec_from(MODEL, form_from(spec)) == spec


@pytest.mark.parametrize("text", ["1.0", "20", "-1", "abc", "", "nan"])
def test_a_wrong_sparsity_is_said_in_words(text):
    with pytest.raises(SpecError, match=r"sparsity .*write 0\.2 for 20 %"):
        spec_from(MODEL, {**START, "prune.sparsity": text})


def test_a_comma_is_a_decimal_point():
    assert spec_from(MODEL, {**START, "prune.sparsity": "0,25"}).prune.sparsity == 0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"calibration.samples": None}, "samples must be a whole number from 1 up, got nothing"),
        ({"calibration.length": 0.5}, "length must be a whole number from 8 up, got 0.5"),
        ({"calibration.samples": "16 windows"}, "samples must be a whole number from 1 up, got 16 windows"),
        ({"seed": "9" * 5000}, "seed must be a whole number from 0 up"),
        ({"calibration.length": 2}, "length must be"),
        ({"seed": -1}, "seed must be"),
        ({"prune.kinds": []}, "kinds is empty; give at least one of ffn_channel"),
        ({"prune.kinds": ["query_head", "kv_group"]}, "either query_head or kv_group"),
        ({"prune.multiple": "many"}, "align must be none, 32, 64, 128 or 256, got 'many'"),
        ({"prune.multiple": ""}, "align must be none, 32, 64, 128 or 256, got ''"),
        ({"prune.max_share": "1,5"}, r"max_share must be a number in \(0, 1\], got 1.5"),
        ({"prune.max_share": "most"}, r"max_share must be a number in \(0, 1\], got 'most'"),
        ({"prune.kind_sparsity": "ffn_channel=1.2"}, "got 1.2; write"),
        ({"prune.kind_sparsity": "ffn=0.2"}, "kind_sparsity names ffn"),
        (
            {"prune.method": "taylor_first", "prune.scope": "al_am"},
            "al_am compares .* are not scored by taylor_first",
        ),
        ({"prune.layers": "9:4"}, "layers 9:4 is empty"),
        ({"prune.layers": "some"}, "layers must be first:last"),
    ],
)
def test_a_wrong_field_is_named(change, message):
    with pytest.raises(SpecError, match=message):
        spec_from(MODEL, {**START, **change})


def test_a_number_that_may_be_left_out_is_a_text_box():
    """An empty number box sends a zero once it is drawn, and nothing could be launched."""
    boxes = [
        path for path in START if path in OPTIONS and OPTIONS[path].optional and OPTIONS[path].kind is int
    ]
    assert {(_kind(OPTIONS[box])[0], START[box]) for box in boxes} == {(gr.Textbox, "")}
    box = "calibration.batch"
    assert box in boxes
    assert spec_from(MODEL, {**START, box: "4"}).calibration.batch == 4
    assert form_from(spec_from(MODEL, {**START, box: "4"}))[box] == "4"


@pytest.mark.parametrize(
    "slip", ["", "abc", "20 %", "0,2", "-1", "1e400", "\u00b2", "=", "9" * 5000, "0:", ","]
)
def test_a_slip_in_any_box_is_read_or_refused_in_words(slip):
    """Whatever is typed into a box that takes text, no box ends in an error that nobody foresaw."""
    shown = [path for path in START if path in OPTIONS and OPTIONS[path].title]
    boxes = [path for path in shown if _kind(OPTIONS[path])[0] in (gr.Textbox, gr.Number)]
    assert len(boxes) > 15 and not [box for box in boxes if _kind(OPTIONS[box])[0] is gr.Number]
    for box in (*boxes, "steps"):
        start = trained() if box == "steps" else START
        try:
            spec_from(MODEL, {**start, box: slip})
        except PruneError as error:
            assert str(error) and "\n" not in str(error), box


def test_an_option_of_the_methods_own_is_read_as_it_is_typed():
    spec = spec_from(MODEL, trained(options='{"warmup": "20 %", "gap": "0,05"}'))
    assert (spec.prune.options["warmup"], spec.prune.options["gap"]) == (0.2, 0.05)
    with pytest.raises(SpecError, match="nuteprune: warmup must be a number from 0 to 1, got 'much'"):
        spec_from(MODEL, trained(options='{"warmup": "much"}'))
    with pytest.raises(SpecError, match=r"got 40.0 \(40 % is 0\.4\)"):
        spec_from(MODEL, trained(options='{"warmup": "40"}'))
    assert spec_from(MODEL, trained(steps="")).prune.options == PRESETS["demo"]["prune.options"]
    with pytest.raises(SpecError, match=r"steps must be a whole number .*got many"):
        spec_from(MODEL, trained(steps="many"))


def test_text_boxes_nobody_touched_are_empty_texts():
    values = form_of(None if held == "" else held for held in START.values())
    assert spec_from(MODEL, values) == RunSpec(goal="prune", model=MODEL)


def trained(**changes):
    preset = changes.get("preset") or "demo"
    start = {**START, "prune.method": "nuteprune", **training_start("nuteprune", preset), "preset": preset}
    return {**start, **{OWN if name == "options" else name: held for name, held in changes.items()}}


def test_a_training_asks_for_its_preset_and_what_differs():
    spec = spec_from(MODEL, trained(steps=60, options='{"lora_rank": 4}'))
    assert spec.prune.options == {**PRESETS["demo"]["prune.options"], "steps": 60, "lora_rank": 4}
    assert (spec.calibration.samples, spec.calibration.length) == (600, 128)
    assert form_from(spec) == trained(preset="demo", steps=60, options='{"lora_rank": 4}')
    assert spec_from(MODEL, form_from(spec)) == spec


@pytest.mark.parametrize("start", ["", "l2", "taylor_first"])
def test_a_training_may_give_options_to_the_criterion_it_starts_from(start):
    asked = {"start_from": start, "aggregation": "max"}
    spec = replace(RunSpec(model=MODEL), prune=PruneSpec("nuteprune", options=asked))
    if start == "taylor_first":
        assert spec_from(MODEL, form_from(spec)).prune.options["aggregation"] == "max"
    else:
        with pytest.raises(UnknownNameError, match="'aggregation'"):
            spec_from(MODEL, form_from(spec))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            '{"start_from": "taylor_first", "aggregation": "most"}',
            "taylor_first: aggregation must be one of sum, prod, max, last, got",
        ),
        ('{"start_from": "tailor_first"}', "Did you mean 'taylor_first'"),
    ],
)
def test_what_the_start_is_told_is_checked(options, says):
    with pytest.raises(PruneError, match=says):
        spec_from(MODEL, trained(options=options))


def test_a_cloned_run_keeps_the_options_of_its_criterion():
    spec = replace(RunSpec(model=MODEL), prune=PruneSpec("taylor_first", options={"aggregation": "max"}))
    assert spec_from(MODEL, form_from(spec)) == spec
    with pytest.raises(UnknownNameError, match="option of l2 'aggregation'"):
        spec_from(MODEL, {**START, "prune.method": "l2", OWN: '{"aggregation": "max"}'})


@pytest.mark.parametrize("preset", [*PRESETS])
def test_a_preset_of_the_form_is_that_of_the_command_line(preset):
    spec = spec_from(MODEL, trained(preset=preset))
    assert spec == with_preset(RunSpec(model=MODEL), "nuteprune", preset, None)
    asked = f"--method nuteprune --preset {preset} --sparsity {spec.prune.sparsity}"
    assert command_line(spec).endswith(asked)


def test_what_is_not_asked_of_a_training_does_not_reach_it():
    spec = spec_from(MODEL, {**trained(), "prune.scope": "global", "prune.reconstruct": "bias"})
    settled = spec.settled().prune
    assert (settled.scope, settled.reconstruct) == ("local", "none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"options": '{"interval": 0}'},
            "interval must be a number from 0.0001 to 1, got 0.0; sparsity i between",
        ),
        (
            {"options": '{"distillation": "progressive", "gap": 0.3}'},
            "gap must be below the sparsity, which is 0.2, got 0.3",
        ),
        ({"options": '{"held": 1.5}'}, "held must be a whole number from 1 to 4096, got 1.5"),
        ({"options": '{"gab": 0.1}'}, "Did you mean 'gap'"),
        ({"steps": 0}, "steps must be a whole number from 1"),
        (
            {"options": '{"distillation": "progressive"}', "prune.sparsity": "0.05"},
            "gap must be below the sparsity, which is 0.05",
        ),
    ],
)
def test_a_wrong_option_is_named(change, message):
    with pytest.raises(PruneError, match=re.escape(message)):
        spec_from(MODEL, trained(**change))


def test_a_cloned_run_keeps_what_has_no_field():
    """Fine-tuning that was left out of a preset stays out, and one that was asked for stays."""
    paper = with_preset(RunSpec(model=MODEL), "nuteprune", "paper-7b-50", None)
    without = replace(paper, recover=replace(paper.recover, method="none"))
    assert spec_from(MODEL, form_from(without)) == without
    assert command_line(without).endswith("--preset paper-7b-50 --sparsity 0.5 --recover none")
    other = RecoverSpec("distill", "a.txt", rank=3, next_token=0.5)
    trained = RunSpec(model=MODEL, prune=PruneSpec("l2"), recover=other, evaluate=EvalSpec(window=64))
    assert form_from(trained)["recipe"] is None and spec_from(MODEL, form_from(trained)) == trained


def test_a_training_of_the_form_follows_a_recipe():
    form = START | recipe_start("demo", "")
    spec = spec_from(MODEL, {**form, "prune.method": "taylor_first", "prune.without_dependency": True})
    assert spec.recover == recover_preset("demo") and form_from(spec)["recipe"] == "demo"
    form |= recipe_start("paper", form[REST], "distill")
    assert spec_from(MODEL, form).recover == replace(recover_preset("paper"), method="distill")
    assert spec_from(MODEL, START).recover.method == "none"


@pytest.mark.parametrize("name", EFFORTS)
def test_an_effort_fills_the_form_and_leaves_what_is_not_of_it(name):
    typed = {"prune.sparsity": "0.3", "name": "mine", "evaluate.text": "a.txt", REST: '{"seed": 3}'}
    form = START | typed | recipe_start("paper", '{"evaluate.window": 64}')
    form |= effort_start(name, form[REST])
    base = RunSpec(
        name="mine", model=MODEL, prune=PruneSpec(sparsity=0.3), evaluate=EvalSpec("a.txt", window=64)
    )
    wanted = with_effort(base, name)
    assert spec_from(MODEL, form) == replace(wanted, recover=replace(wanted.recover, data="alpaca,bundled"))
    trained_before = trained() | effort_start(name, trained()[REST])
    assert spec_from(MODEL, trained_before).recover.method == wanted.recover.method


def test_a_recipe_that_trains_all_weights_is_taught_whatever_way_was_chosen():
    form = START | {"recover.method": "lora"} | recipe_start("minutes", "", "lora")
    assert spec_from(MODEL, form).recover == recover_preset("minutes")
