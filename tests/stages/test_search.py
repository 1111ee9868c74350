"""Runs of scope `searched`: the plan comes from measurements, is resumed, and takes part in sweeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import DataError, SpecError, StopRequested
from core.results.search import read_search
from core.results.sweep import read_sweep
from core.runs import launch
from core.runs.artifacts import read_plan
from core.search.losses import Losses
from core.spec.calibration import DataSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from core.stages.check import check
from core.stages.worker import execute
from tests.stages.steps import again, done, outcome, staged

SEARCHED = PruneSpec("ifv", 0.3, "searched", reconstruct="bias", search_tokens=32, search_rounds=1)


def test_a_search_meets_its_target_and_keeps_what_it_measured(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, replace(spec, prune=SEARCHED))
    assert staged(run_dir).index("search") == staged(run_dir).index("plan") - 1
    plan, kept = read_plan(run_dir), read_search(run_dir)
    assert abs(plan.sparsity - 0.3) * plan.params_in_scope <= 96 and plan.scope == "searched"
    assert (kept.criterion, kept.tokens, kept.ppl_tokens, kept.biased) == ("ifv", 32, 64, True)
    assert {len(curve.gone) for curve in kept.curves.values()} >= {5}
    whole = [trial for trial in kept.trials if trial.params == plan.after.params]  # type: ignore[union-attr]
    assert whole and [trial.round for trial in kept.trials[:4]] == [0] * 4


def test_a_search_that_is_stopped_goes_on_with_the_same_plan(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(spec, prune=SEARCHED)
    whole = done(tmp_path / "whole", asked)
    cut, real, calls = launch.create(tmp_path / "cut", asked, mine=True), Losses.without, list[str]()

    def stops(self: Losses, group: str, units: tuple[int, ...]) -> float:
        calls.append(group)
        if len(calls) == 9:
            raise StopRequested("enough")
        return real(self, group, units)

    monkeypatch.setattr(Losses, "without", stops)
    with pytest.raises(StopRequested):
        execute(cut)
    first = list(calls)
    again(cut)
    assert outcome(cut) == outcome(whole)
    assert calls[9] == first[8], "it goes on where it was stopped"


def test_points_of_a_sweep_search_with_the_curves_of_one(tmp_path: Path, spec: RunSpec) -> None:
    sweep = SweepSpec(("ifv",), (0.2, 0.3), ("searched", "local"), ("bias",), samples=(4,))
    points = {
        (p.scope, p.target): p
        for p in read_sweep(done(tmp_path, replace(spec, goal="sweep", sweep=sweep))).points
    }
    assert all(point.ppl and not point.error for point in points.values()) and len(points) == 4


def test_what_cannot_be_searched_is_refused(spec: RunSpec) -> None:
    with pytest.raises(SpecError, match="scope must be another than searched where hidden channels go"):
        PruneSpec("l2", 0.3, "searched", ("residual_channel",))
    with pytest.raises(SpecError, match="another than searched where layers are to end alike"):
        PruneSpec("ifv", 0.3, "searched", uniform_heads=True)
    no_text = replace(spec, prune=PruneSpec("l2", scope="searched"), calibration=DataSpec("none"))
    with pytest.raises(DataError, match="scope searched needs calibration text"):
        check(no_text)
