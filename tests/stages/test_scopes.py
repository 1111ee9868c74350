"""Scopes in runs: what AL-AM ranks by is made and kept with the scores, and what it cannot rank is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.errors import SpecError
from core.graph.discover import discover
from core.models.load import load
from core.plan.allocation import allocate
from core.results.scores import SCORES, ranked_by, read_all_scores, read_scores, write_scores
from core.results.sweep import read_sweep
from core.runs.artifacts import read_plan
from core.spec.explore import ExploreSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from core.stages.check import check
from tests.stages.steps import again, done

AL_AM = PruneSpec("wifv", 0.3, "al_am", reconstruct="bias")


def test_a_run_ranks_by_what_al_am_makes_of_the_scores_and_keeps_it(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, replace(spec, prune=AL_AM))
    every = read_all_scores(run_dir)
    assert set(read_scores(run_dir)) == {"wifv"} and set(every) == {"wifv", ranked_by("wifv", "al_am")}
    graph, plan = discover(load(spec.model.source, device="cpu").model, name=""), read_plan(run_dir)
    made = allocate(graph, every[ranked_by("wifv", "al_am")], **AL_AM.allocation())
    assert plan.removed == made.removed and plan.scope == "al_am" and plan.biases
    for name in made.removed:
        assert every["wifv.al_am"][name].mean() == pytest.approx(0, abs=1e-5)


def test_scores_kept_from_before_al_am_are_made_again(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, replace(spec, prune=AL_AM))
    before = read_all_scores(run_dir)
    write_scores(run_dir, read_scores(run_dir))
    (run_dir / "plan.json").unlink()
    again(run_dir)
    assert set(read_all_scores(run_dir)) == set(before) and (run_dir / SCORES).exists()


def test_exploring_makes_what_a_preview_of_al_am_needs(tmp_path: Path, spec: RunSpec) -> None:
    asked = replace(spec, goal="explore", explore=ExploreSpec(("scores",), ("wifv", "l2")))
    scores = read_all_scores(done(tmp_path, asked))
    assert set(scores) == {"wifv", "l2", "wifv.al_am"}
    assert all(np.isfinite(values).all() for values in scores["wifv.al_am"].values())


def test_a_sweep_says_which_of_its_methods_al_am_cannot_rank(tmp_path: Path, spec: RunSpec) -> None:
    asked = replace(
        spec, goal="sweep", sweep=SweepSpec(("l2", "wifv"), (0.3,), ("local", "al_am"), samples=(4,))
    )
    points = {(p.method, p.scope): p for p in read_sweep(done(tmp_path, asked)).points}
    refused = points.pop(("l2", "al_am"))
    assert refused.ppl is None and "not scored by l2" in (refused.error or "")
    assert all(point.ppl for point in points.values()) and len(points) == 3
    assert points["wifv", "local"].ppl != points["wifv", "al_am"].ppl
    with pytest.raises(SpecError, match="not scored by l2, l1; take a method that scores them"):
        check(replace(asked, sweep=replace(asked.sweep, methods=("l2", "l1"), scopes=("al_am",))))
