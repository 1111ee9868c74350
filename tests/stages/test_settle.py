"""What is recommended, in a run: for the model at hand, written down and said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import ModelError
from core.runs.artifacts import read_plan, read_spec
from core.spec.explore import ExploreSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.stages import settle as settling
from core.stages.settle import settle
from tests.graph.families import graph_of
from tests.stages.steps import done


def test_a_run_writes_down_what_was_recommended_to_it(tmp_path: Path, spec: RunSpec) -> None:
    asked = replace(spec, prune=PruneSpec(sparsity=0.3))
    run_dir = done(tmp_path, asked)
    kept, plan = read_spec(run_dir), read_plan(run_dir)
    assert (kept.prune.method, kept.prune.scope, kept.prune.reconstruct) == ("ifv", "al_am", "bias")
    assert (plan.method, plan.scope) == ("ifv", "al_am") and plan.biases
    assert kept.extra["recommended"] == PruneSpec().because()


def test_experts_in_one_stack_get_what_works_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "graph_of", lambda model, config_only: graph_of("mixtral"))
    prune = settle(RunSpec())
    assert (prune.prune.method, prune.prune.scope, prune.prune.reconstruct) == (
        "taylor_first",
        "local",
        "none",
    )
    assert "stack of experts" in prune.extra["recommended"]
    heads = RunSpec(prune=PruneSpec(kinds=("query_head",)))
    assert settle(heads).prune.method == "ifv"  # heads are read by a matrix of their own
    explore = RunSpec(goal="explore", explore=ExploreSpec(("scores",)))
    assert settle(explore).explore.criteria == ("taylor_first", "l2", "l1", "random")
    assert settle(replace(explore, goal="sweep")).sweep.methods == ("taylor_first", "random")
    assert settle(RunSpec(prune=PruneSpec("ifv"))).prune.method == "ifv"  # who asks for it is told


def test_a_model_that_is_not_there_is_said() -> None:
    with pytest.raises(ModelError, match="nowhere"):
        settle(RunSpec(model=ModelSpec("./nowhere")))
