"""What is recommended, in a run: for the model at hand, written down and said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import ModelError, StopRequested
from core.results.sweep import planned
from core.runs import launch
from core.runs.artifacts import read_plan, read_spec
from core.runs.events import Event
from core.spec.explore import ExploreSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.stages import check as settling
from core.stages.check import settle
from core.stages.worker import execute
from tests.graph.families import graph_of
from tests.stages.steps import done


def test_a_run_writes_down_what_was_recommended_to_it(tmp_path: Path, spec: RunSpec) -> None:
    asked = replace(spec, prune=PruneSpec(sparsity=0.3))
    run_dir = done(tmp_path, asked)
    kept, plan = read_spec(run_dir), read_plan(run_dir)
    assert (kept.prune.method, kept.prune.scope, kept.prune.reconstruct) == (
        "taylor_second",
        "global",
        "bias",
    )
    assert (plan.method, plan.scope) == ("taylor_second", "global") and plan.biases
    assert kept.extra["recommended"] == PruneSpec().because()


def test_a_run_that_may_run_a_model_s_code_still_may_after_what_is_recommended_is_written_down(
    tmp_path: Path, spec: RunSpec
) -> None:
    trusting = replace(spec, prune=PruneSpec(sparsity=0.3), model=replace(spec.model, trust_remote_code=True))
    run_dir = launch.create(tmp_path, trusting, mine=True)

    def stop_there(event: Event) -> None:
        if event.stage == "graph":
            raise StopRequested("here")

    with pytest.raises(StopRequested):
        execute(run_dir, stop_there)
    assert read_spec(run_dir).prune.method == "taylor_second"
    launch.require_consent(run_dir, read_spec(run_dir))  # as Resume asks


def test_experts_in_one_stack_get_what_works_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "graph_of", lambda model, config_only: graph_of("mixtral"))
    prune = settle(RunSpec())
    assert (prune.prune.method, prune.prune.scope, prune.prune.reconstruct) == (
        "taylor_second",
        "global",
        "none",
    )
    heads = RunSpec(prune=PruneSpec(kinds=("query_head",)))
    assert settle(heads).prune.reconstruct == "bias"  # heads are read by a matrix of their own
    explore = RunSpec(goal="explore", explore=ExploreSpec(("scores",)))
    assert settle(explore).explore.criteria == ("taylor_second", "taylor_first", "l2", "l1", "random")
    swept = settle(replace(explore, goal="sweep"))
    assert {point.reconstruct for point in planned(swept)} == {"none"}
    assert settle(RunSpec(prune=PruneSpec("ifv"))).prune.method == "ifv"  # who asks for it is told


def test_a_model_that_is_not_there_is_said() -> None:
    with pytest.raises(ModelError, match="nowhere"):
        settle(RunSpec(model=ModelSpec("./nowhere")))
