"""A target that is met in rounds: each scores, refits and cuts what the rounds before have left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import SpecError, StopRequested
from core.models.load import load
from core.results.agreement import read_check
from core.runs import launch
from core.runs.artifacts import CHECKPOINT, MODEL, read_graph, read_plan
from core.runs.events import Event, EventReader
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.stages.check import check
from core.stages.result import ROUNDS
from core.stages.worker import execute
from tests.stages.steps import again, done, outcome, staged

ASKED = PruneSpec("wifv", 0.3, reconstruct="bias", rounds=3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, spec: RunSpec) -> Path:
    return done(tmp_path_factory.mktemp("rounds"), replace(spec, prune=ASKED))


def test_the_target_is_met_by_one_plan_of_all_rounds(finished: Path, spec: RunSpec, tmp_path: Path) -> None:
    plan, graph = read_plan(finished), read_graph(finished)
    at_once = read_plan(done(tmp_path, replace(spec, prune=replace(ASKED, rounds=1))))
    assert plan.before and plan.after and at_once.after
    assert plan.before == at_once.before and abs(plan.after.params - at_once.after.params) <= 2 * 96
    assert plan == read_plan(finished / MODEL) and graph == read_graph(finished / MODEL)
    assert plan.removed != at_once.removed and [n[:5] for n in plan.notes[:3]] == ["Cut 1", "Cut 2", "Cut 3"]
    assert all(row.holds for row in read_check(finished).cut)
    assert staged(finished).count("capture") == staged(finished).count("surgery") == 3
    assert sum(p.numel() for p in load(str(finished), device="cpu").model.parameters()) == plan.after.params
    assert not (finished / CHECKPOINT / ROUNDS).exists()


@pytest.mark.parametrize(("stage", "times"), [("score", 2), ("surgery", 3), ("evaluate", 1)])
def test_stopped_between_rounds_it_ends_as_one_that_was_not(
    stage: str, times: int, finished: Path, spec: RunSpec, tmp_path: Path
) -> None:
    run_dir, seen = launch.create(tmp_path, replace(spec, prune=ASKED), mine=True), list[str]()

    def stop_there(event: Event) -> None:
        seen.append(event.stage if event.type == "stage" else "")
        if event.type == "stage" and seen.count(stage) == times:
            raise StopRequested("here")

    with pytest.raises(StopRequested):
        execute(run_dir, stop_there)
    again(run_dir)
    assert outcome(run_dir) == outcome(finished)
    told = [str(event.data.get("text")) for event in EventReader(run_dir / "events.jsonl").read()]
    assert f"{3 if stage == 'evaluate' else times - 1} of 3 rounds are kept" in told


def test_a_pruned_model_is_cut_in_rounds(finished: Path, spec: RunSpec, tmp_path: Path) -> None:
    run_dir = done(
        tmp_path, replace(spec, model=ModelSpec(str(finished), "cpu"), prune=replace(ASKED, rounds=2))
    )
    step, whole, before = read_plan(run_dir), read_plan(run_dir / MODEL), read_plan(finished)
    assert step.before == before.after and whole.before == before.before and whole.after == step.after


@pytest.mark.parametrize(
    "changes", [{"target": "params=-10%"}, {"scope": "searched"}, {"max_share": 0.5}, {"method": "nuteprune"}]
)
def test_what_does_not_go_in_rounds_is_refused_first(changes: dict[str, object], spec: RunSpec) -> None:
    asked = replace(ASKED, **{"reconstruct": "none", **changes})  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="rounds"):
        check(replace(spec, prune=asked))


def test_more_rounds_than_units_that_go_are_refused_with_the_most_there_can_be(spec: RunSpec) -> None:
    with pytest.raises(SpecError, match=r"999 rounds are more than the \d+ units that go.* at most --rounds"):
        check(replace(spec, prune=replace(ASKED, rounds=999)))
