"""Specs: JSON in and out, and every bad request named with what was got and what is accepted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from core.errors import SpecError
from core.spec.calibration import DataSpec
from core.spec.checks import check_sparsity, check_tau, parse_layers
from core.spec.evaluate import EvalSpec
from core.spec.explore import ExploreSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec


def test_json_round_trip_keeps_everything() -> None:
    spec = RunSpec(
        goal="explore",
        name="mine",
        seed=3,
        model=ModelSpec("folder", "cpu", "float32"),
        calibration=DataSpec("text.txt", 4, 16),
        explore=ExploreSpec(("groups", "scores"), ("l1",), ("both",), (0.25,), "l1", 64, 0.1),
        prune=PruneSpec("l2", 0.1, "local", ("kv_group",), "1:2", {"a": [1]}),
        evaluate=EvalSpec("other.txt", 32, 64, ("a", "b"), 5, False),
        extra={"versions": {"torch": "2"}},
    )
    assert RunSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("bad", [1.0, 20, -1, 10**400, "abc", None, True, float("nan"), float("inf")])
def test_sparsity_outside_its_range_is_refused(bad: object) -> None:
    with pytest.raises(SpecError, match=r"sparsity must be in \[0, 1\), got .*; write"):
        check_sparsity(bad)


def test_sparsity_given_in_percent_is_translated() -> None:
    with pytest.raises(SpecError, match=r"got 35; write 0.35 for 35 %"):
        check_sparsity(35)


@pytest.mark.parametrize("good", [0, 0.0, 0.2, 0.999])
def test_sparsity_in_range_is_kept(good: float) -> None:
    assert check_sparsity(good) == good


@pytest.mark.parametrize("bad", [-0.1, 1.1, "x"])
def test_tau_outside_its_range_is_refused(bad: object) -> None:
    with pytest.raises(SpecError, match="tau must be in"):
        check_tau(bad)


@pytest.mark.parametrize(
    ("text", "found"),
    [("1:3", range(1, 3)), (":2", range(2)), ("1:", range(1, 4)), (":", range(4)), ("all", range(4))],
)
def test_layers_read_as_a_slice(text: str, found: range) -> None:
    assert parse_layers(text, 4) == found


def test_the_ranges_of_the_papers_read_as_their_code_reads_them() -> None:
    assert parse_layers("4:30", 32) == parse_layers("4-30", 32) == range(4, 30)
    assert parse_layers("3:31", 32) == parse_layers("3-31", 32) == range(3, 31)
    assert parse_layers(" 3 : 31 ") == range(3, 31), "before the model is known"


@pytest.mark.parametrize("text", ["", "3", "a:b", "1:2:3", "-1:2", "2:2", "3:1"])
def test_layers_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match="layers"):
        parse_layers(text, 4)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1-3", r"got '1-3'; write 1:4 if layer 3 goes too, 1:3 if it stays"),
        (":-1", r"got ':-1'; layers are counted from 0 and from the front only"),
        ("-2:", "write :3 for all but the last"),
        ("first", r"an end may be left out, as in 3: or :30"),
    ],
)
def test_what_was_probably_meant_is_said(text: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        parse_layers(text, 4)


@pytest.mark.parametrize("text", ["2:9", "4:", "9:2", "7:9"])
def test_a_layer_that_does_not_exist_is_refused_with_the_range_there_is(text: str) -> None:
    with pytest.raises(SpecError, match=rf"layers {text} goes past the model, which has layers 0 to 3"):
        parse_layers(text, 4)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ModelSpec(" "), "model"),
        (lambda: ModelSpec("de\0mo"), "model must be"),
        (lambda: ModelSpec("demo" * 99), r"'demo.*… \(396 characters, too many for a file\)'"),
        (lambda: ModelSpec("a/" * 3000), "6,000 characters"),
        (lambda: EvalSpec(also=("x" * 256,)), "256 characters"),
        (lambda: ModelSpec(dtype="int8"), "dtype"),
        (lambda: DataSpec(samples=0), "samples"),
        (lambda: DataSpec(length=True), "length"),
        (lambda: PruneSpec(kinds=("neuron",)), "kinds"),
        (lambda: PruneSpec(kinds=()), "kinds"),
        (lambda: PruneSpec(kinds=("query_head", "kv_group")), "either query_head or kv_group"),
        (lambda: PruneSpec(scope="globl"), "Unknown scope 'globl'. Did you mean 'global'"),
        (lambda: PruneSpec(reconstruct="non"), "Did you mean 'none'"),
        (lambda: PruneSpec(multiple=0), "align must be none, or a whole number from 1 up"),
        (lambda: PruneSpec(kind_sparsity={"ffn_channel": 1.2}), "kind_sparsity of ffn_channel"),
        (lambda: PruneSpec(kind_sparsity={"kv_group": 0.1}), "kind_sparsity names kv_group"),
        (
            lambda: PruneSpec(max_share=0.5, reconstruct="pre_pruning_refit"),
            "max_share must be 1 with pre_pruning",
        ),
        (lambda: EvalSpec(window=4), "window"),
        (lambda: EvalSpec(window=64, tokens=63), "tokens"),
        (lambda: ExploreSpec(analyses=("dreams",)), "analyses"),  # type: ignore[arg-type]
        (lambda: ExploreSpec(sensitivity_ratios=(0.5, 0)), "ratio must be numbers"),
        (lambda: ExploreSpec(sensitivity_kinds=("heads",)), "Did you mean 'head'"),
        (lambda: RunSpec(seed=-1), "seed"),
        (lambda: RunSpec(goal="dance"), "goal"),  # type: ignore[arg-type]
    ],
)
def test_each_field_says_what_it_accepts(make: object, named: str) -> None:
    with pytest.raises(SpecError, match=named):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "This is no spec"),
        ("[]", "spec must be a JSON object"),
        ('{"colour": 1}', "spec has no field 'colour'"),
        ('{"prune": {"ratio": 1}}', "prune has no field 'ratio'"),
        ('{"prune": 5}', "prune must be a JSON object"),
        ('{"prune": {"layers": 5}}', "layers must be first:last, for example 4:30, got '5'"),
        ('{"model": {"source": 5}}', "model must be a hub id, folder, .gguf file or 'demo', got 5"),
        ('{"prune": {"sparsity": "abc"}}', "sparsity must be in"),
    ],
)
def test_what_is_no_spec_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(SpecError, match=named):
        RunSpec.from_json(text)


def test_a_spec_may_leave_fields_out() -> None:
    assert RunSpec.from_json(json.dumps({"seed": 5})) == RunSpec(seed=5)


def test_unknown_fields_are_named_with_what_was_meant() -> None:
    for text, said in (
        (
            '{"prune": {"sparsty": 0.1}}',
            "prune has no field 'sparsty'. Did you mean 'sparsity'? It has",
        ),
        ('{"prune": {"colour": 1, "age": 2}}', "prune has no field 'age', 'colour'."),
    ):
        with pytest.raises(SpecError, match=re.escape(said)):
            RunSpec.from_json(text)


def test_a_run_of_a_past_release_is_read_and_says_what_is_left_out() -> None:
    old = {"seed": 5, "colour": "red", "prune": {"sparsity": 0.3, "tilt": 2}}
    spec = RunSpec.from_run(json.dumps(old))
    assert (spec.seed, spec.prune.sparsity) == (5, 0.3)
    assert spec.extra["unread"] == {"colour": "red", "prune.tilt": 2}
    assert spec.warning == (
        "its spec asks for colour='red', prune.tilt=2, which no longer exists; that is left out."
    )
    assert RunSpec.from_run(spec.to_json()) == spec and RunSpec().warning == ""
    with pytest.raises(SpecError, match="sparsity must be in"):
        RunSpec.from_run('{"prune": {"sparsity": 20, "tilt": 2}}')


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DataSpec(samples=2.0), "samples must be a whole number from 1 up, got 2.0."),
        (lambda: PruneSpec(sparsity="0.2"), "sparsity must be in [0, 1), got 0.2; write"),
        (lambda: RecoverSpec(alpha=True), "alpha must be a number above 0, got True."),
        (lambda: RecoverSpec(learning_rate=float("nan")), "learning_rate must be a number above 0, got nan."),
        (lambda: RecoverSpec(dropout=1), "dropout must be a number in [0, 1), got 1.0."),
        (lambda: RecoverSpec(batch=6), "micro_batch must be a divisor of batch, which is 6, got 4."),
        (lambda: RecoverSpec(length=4), "recover length must be a whole number from 8 up, got 4."),
        (lambda: SweepSpec(seeds=(1, -1)), "seeds must be whole numbers from 0 up, got -1."),
        (lambda: SweepSpec(methods=()), "methods is empty; give at least one value"),
        (lambda: EvalSpec(prompts="one"), "prompts must be a list, texts, got 'one'."),
        (lambda: PruneSpec(kinds="ffn_channel"), "kinds must be a list, some of ffn_channel, query_head"),
        (
            lambda: PruneSpec(kind_sparsity={"ffn_channel": "x"}),  # type: ignore[dict-item]
            "kind_sparsity of ffn_channel: sparsity must be in [0, 1), got x; write 0.2 for 20 %.",
        ),
        (lambda: ExploreSpec(criteria=()), "criteria is empty; give at least one."),
        (
            lambda: DataSpec(" "),
            "calibration must be mixed, bundled, factbook, a named data set, a file, a hub data set, self or "
            "none, got ' '.",
        ),
        (
            lambda: EvalSpec(""),
            "text for perplexity must be bundled, factbook, a named data set, a file, or a hub data set, "
            "got ''.",
        ),
        (lambda: EvalSpec(efficiency=1), "efficiency must be true or false, got 1."),
    ],
)
def test_types_are_not_guessed(make: Callable[[], object], said: str) -> None:
    with pytest.raises(SpecError, match=re.escape(said)):
        make()


def test_a_list_becomes_a_tuple() -> None:
    assert PruneSpec(kinds=["ffn_channel"]).kinds == ("ffn_channel",)  # type: ignore[arg-type]


def test_what_was_given_and_counts_for_nothing_is_said() -> None:
    given = {"recovery_samples": 64, "search_tokens": 64, "search_rounds": 1, "drop_by": "summed"}
    for name, value in given.items():
        (said,) = RunSpec(prune=PruneSpec(**{name: value})).settled().idle
        assert said.startswith(f"{name} {value} counts for nothing without --")
    used = {"reconstruct": "pre_pruning", "scope": "searched"}
    assert [said[:7] for said in RunSpec(prune=PruneSpec(**given, **used)).idle] == ["drop_by"]
    assert not RunSpec(prune=PruneSpec(drop="layer=1", drop_by="summed")).idle and not RunSpec().idle
    in_points = SweepSpec(scopes=("local", "searched"), reconstruct=("pre_pruning",), drops=("", "layer=1"))
    assert not RunSpec(goal="sweep", prune=PruneSpec(**given), sweep=in_points).idle
    (said,) = RunSpec(goal="sweep", prune=PruneSpec(search_rounds=1)).idle
    assert said == "search_rounds 1 counts for nothing without --scopes searched."
    (said,) = RunSpec(goal="sweep", prune=PruneSpec(drop="layer=1")).idle
    assert said.endswith("a sweep takes --drops.")


def test_what_only_a_teacher_needs_counts_for_nothing_with_lora() -> None:
    given = {"teacher": "demo", "temperature": 2.0, "next_token": 1.0, "layer_weight": 1.0}
    for name, value in given.items():
        (said,) = RunSpec(recover=RecoverSpec("lora", **{name: value})).idle  # type: ignore[arg-type]
        assert said == f"{name} {value} counts for nothing without --recover distill."
    assert not RunSpec(recover=RecoverSpec("distill", **given)).idle  # type: ignore[arg-type]
    assert not RunSpec(recover=RecoverSpec("lora")).idle and not RunSpec(goal="explore").idle


def test_what_pre_pruning_was_goes_on_under_its_new_name() -> None:
    """Before format 2 the name meant what `pre_pruning_refit` is; a spec that a run kept says so itself."""
    old = {"prune": {"reconstruct": "pre_pruning"}, "sweep": {"reconstruct": ["none", "pre_pruning"]}}
    for spec in (
        RunSpec.from_run(json.dumps(old)),
        RunSpec.from_json(json.dumps({**old, "extra": {"versions": {"torch": "2"}}})),
    ):
        assert spec.prune.reconstruct == "pre_pruning_refit"
        assert spec.sweep.reconstruct == ("none", "pre_pruning_refit")
        assert RunSpec.from_run(spec.to_json()) == spec
    assert RunSpec.from_json(json.dumps(old)).prune.reconstruct == "pre_pruning", "written by hand, today"
    new = RunSpec(prune=PruneSpec(reconstruct="pre_pruning"))
    assert RunSpec.from_run(new.to_json()) == new
    with pytest.raises(SpecError, match=r"format must be one of 2, got 3"):
        RunSpec.from_run('{"format": 3}')
