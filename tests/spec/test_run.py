"""Specs: JSON in and out, and every bad request named with what was got and what is accepted."""

from __future__ import annotations

import json

import pytest

from core.errors import SpecError
from core.spec.checks import check_sparsity, check_tau, parse_layers
from core.spec.evaluate import EvalSpec
from core.spec.explore import ExploreSpec
from core.spec.model import DataSpec, ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec


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


@pytest.mark.parametrize("bad", [1.0, 20, -1, "abc", None, True, float("nan"), float("inf")])
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


@pytest.mark.parametrize("text", ["", "3", "a:b", "1:2:3", "-1:2", "2:2", "3:1"])
def test_layers_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match="layers"):
        parse_layers(text, 4)


def test_a_layer_that_does_not_exist_is_refused_with_the_range_there_is() -> None:
    with pytest.raises(SpecError, match=r"layers 2:9 goes past the model, which has layers 0 to 3"):
        parse_layers("2:9", 4)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ModelSpec(" "), "model"),
        (lambda: ModelSpec(dtype="int8"), "dtype"),
        (lambda: DataSpec(samples=0), "samples"),
        (lambda: DataSpec(length=True), "length"),
        (lambda: PruneSpec(kinds=("neuron",)), "kinds"),
        (lambda: PruneSpec(kinds=()), "kinds"),
        (lambda: PruneSpec(kinds=("query_head", "kv_group")), "either query_head or kv_group"),
        (lambda: PruneSpec(scope="globl"), "Unknown scope 'globl'. Did you mean 'global'"),
        (lambda: PruneSpec(reconstruct="non"), "Did you mean 'none'"),
        (lambda: PruneSpec(multiple=0), "multiple must be a whole number from 1 up"),
        (lambda: PruneSpec(kind_sparsity={"ffn_channel": 1.2}), "kind_sparsity of ffn_channel"),
        (lambda: PruneSpec(kind_sparsity={"kv_group": 0.1}), "kind_sparsity names kv_group"),
        (lambda: EvalSpec(window=4), "window"),
        (lambda: EvalSpec(window=64, tokens=63), "tokens"),
        (lambda: ExploreSpec(analyses=("dreams",)), "analyses"),  # type: ignore[arg-type]
        (lambda: ExploreSpec(sensitivity_ratios=(0.5, 0)), "sensitivity_ratios"),
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
        ('{"prune": {"layers": 5}}', "prune does not fit"),
        ('{"model": {"source": 5}}', "model does not fit"),
        ('{"prune": {"sparsity": "abc"}}', "sparsity must be in"),
    ],
)
def test_what_is_no_spec_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(SpecError, match=named):
        RunSpec.from_json(text)


def test_a_spec_may_leave_fields_out() -> None:
    assert RunSpec.from_json(json.dumps({"seed": 5})) == RunSpec(seed=5)
