"""Specs and files of format 1: criteria whose names have come to mean something else keep what they were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import ArtifactError, SpecError
from core.files import save_arrays
from core.methods import criteria_of, criteria_options
from core.plan.records import PruningPlan
from core.results.scores import SCORES, read_scores, write_scores
from core.results.sensitivity import SENSITIVITY, Sensitivity, read_sensitivity, write_sensitivity
from core.spec.explore import ExploreSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from core.stages.early import check_method

TEACHES = {"start_from": "taylor_mix", "start_samples": 4}
FROM_VECTOR = {"start_from": "taylor_vector"}
LARGEST = {"aggregation": "max"}
BY_SLICE = {"vector": "structure"}


def old(spec: RunSpec) -> RunSpec:
    """The spec as a run of release 0.1 would have kept it, read today."""
    raw = json.loads(spec.to_json())
    del raw["format"]
    return RunSpec.from_run(json.dumps(raw))


def exploring(*analyses: Any, criteria: tuple[str, ...] = ("l2",), by: str = "l2") -> RunSpec:
    return RunSpec(goal="explore", explore=ExploreSpec(analyses, criteria, sensitivity_criterion=by))


SPECS = {
    "prune": RunSpec(prune=PruneSpec("taylor_first")),
    "train": RunSpec(prune=PruneSpec("nuteprune", 0.3, options=TEACHES)),
    "sweep": RunSpec(goal="sweep", sweep=SweepSpec(("l2", "taylor_mix", "taylor_second"))),
    "explore": exploring("scores", "sensitivity", criteria=("taylor_mix", "l1"), by="taylor_first"),
}


@pytest.mark.parametrize(
    ("goal", "scored"),
    [
        ("prune", ["taylor_first_per_sample"]),
        ("train", ["taylor_mix_per_sample"]),
        ("sweep", ["l2", "taylor_mix_per_sample", "taylor_second"]),
        ("explore", ["taylor_mix_per_sample", "l1", "taylor_first_per_sample"]),
    ],
)
def test_a_spec_of_before_scores_sample_by_sample(goal: str, scored: list[str]) -> None:
    spec = SPECS[goal]
    assert criteria_of(old(spec)) == scored
    assert RunSpec.from_run(old(spec).to_json()) == old(spec), "told once, it stays so"
    assert RunSpec.from_run(spec.to_json()) == spec, "today's means what it says"
    assert criteria_options(old(spec)).keys() == criteria_options(spec).keys()
    check_method(old(spec))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (RunSpec(prune=PruneSpec("taylor_vector")), BY_SLICE),
        (RunSpec(prune=PruneSpec("taylor_vector", options=LARGEST)), LARGEST | BY_SLICE),
        (RunSpec(prune=PruneSpec("taylor_vector", options={"vector": "neuron"})), {"vector": "neuron"}),
        (RunSpec(prune=PruneSpec("nuteprune", options=FROM_VECTOR)), FROM_VECTOR | BY_SLICE),
        (RunSpec(goal="sweep", sweep=SweepSpec(("l2", "taylor_vector"))), BY_SLICE),
        (RunSpec(goal="sweep", prune=PruneSpec("taylor_vector"), sweep=SweepSpec(("l2",))), {}),
        (exploring("scores", criteria=("l2", "taylor_vector")), BY_SLICE),
        (exploring("sensitivity", by="taylor_vector"), BY_SLICE),
        (exploring("scores", by="taylor_vector"), {}),
    ],
)
def test_a_vector_of_before_was_a_whole_slice(spec: RunSpec, said: dict[str, Any]) -> None:
    """The option is set where `taylor_vector` scores, and nowhere else: others would refuse it."""
    assert criteria_options(old(spec)) == said
    check_method(old(spec))
    assert criteria_options(RunSpec.from_run(spec.to_json())) == criteria_options(spec), (
        "today's means what it says"
    )


def test_what_is_no_spec_is_still_refused_by_name() -> None:
    damaged: list[dict[str, Any]] = [
        {"prune": 3},
        {"goal": "explore", "explore": {"analyses": 1}},
        {"goal": []},
    ]
    for raw in damaged:
        with pytest.raises(SpecError, match=r"prune|analyses|goal"):
            RunSpec.from_run(json.dumps(raw))


def test_scores_of_before_have_the_name_of_what_they_are(tmp_path: Path) -> None:
    scores = {
        name: {"g": np.full(2, n, np.float32)} for n, name in enumerate(("taylor_first", "l2", "taylor_mix"))
    }
    write_scores(tmp_path, scores)
    assert list(read_scores(tmp_path)) == ["taylor_first", "l2", "taylor_mix"], "written today"
    flat = {f"{name}/g": by["g"] for name, by in scores.items()}
    save_arrays(tmp_path / SCORES, flat, {"criteria": json.dumps(list(scores))})
    read = read_scores(tmp_path)
    assert list(read) == ["taylor_first_per_sample", "l2", "taylor_mix_per_sample"]
    assert [by["g"][0] for by in read.values()] == [0, 1, 2]
    save_arrays(tmp_path / SCORES, flat, {"criteria": json.dumps(list(scores)), "format": "new"})
    with pytest.raises(ArtifactError, match="damaged"):
        read_scores(tmp_path)


def test_a_scan_and_a_plan_of_before_name_what_picked_their_units(tmp_path: Path) -> None:
    scan = Sensitivity(9.5, "t", 8, 64, "taylor_mix", [])
    write_sensitivity(tmp_path, scan)
    assert read_sensitivity(tmp_path) == scan, "written today"
    raw = json.loads((tmp_path / SENSITIVITY).read_text())
    del raw["format"]
    (tmp_path / SENSITIVITY).write_text(json.dumps(raw))
    assert read_sensitivity(tmp_path) == replace(scan, criterion="taylor_mix_per_sample")
    plan = PruningPlan({"g": (1,)}, method="taylor_first")
    again = PruningPlan.from_json(plan.to_json())
    assert again == plan == PruningPlan.from_json(again.to_json()), "written today"
    raw = {name: value for name, value in json.loads(plan.to_json()).items() if name != "format"}
    before = PruningPlan.from_json(json.dumps(raw))
    assert (
        before == replace(plan, method="taylor_first_per_sample") == PruningPlan.from_json(before.to_json())
    )
