"""Exploring makes the analyses that are asked for and no model; a wrong request is found before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.criteria import CRITERIA
from core.errors import DataError, InputError, ModelError, SpecError, StopRequested, UnknownNameError
from core.files import read_json
from core.results.activations import ACTIVATIONS, read_activations
from core.results.scores import read_scores
from core.results.sensitivity import read_sensitivity
from core.results.similarity import algorithm_1, pairs_below, read_similarity
from core.runs import launch
from core.runs.artifacts import CHECKPOINT, EVENTS, METRICS, MODEL, PLAN
from core.runs.events import EventReader
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.explore import ExploreSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.stages.check import check
from core.stages.worker import execute
from core.surgery.masks import masked
from tests.stages.steps import again, done, staged


def test_every_criterion_scores_in_one_run_with_its_options(tmp_path: Path, spec: RunSpec) -> None:
    asked = ExploreSpec(
        ("scores",),
        tuple(CRITERIA.names()),
        options={
            "aggregation": "max",
            "tau": 0.0,
        },
    )
    run_dir = done(tmp_path, replace(spec, goal="explore", explore=asked))
    scores = read_scores(run_dir)
    assert list(scores) and set(scores) == set(CRITERIA.names())
    for group in scores["l1"]:
        assert np.array_equal(scores["similar_heads"][group], scores["second_moment"][group])
        assert (scores["fusion"][group] >= scores["taylor_mix_per_sample"][group]).all()


def test_a_scan_that_is_stopped_goes_on_behind_its_last_point(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(
        spec, goal="explore", explore=ExploreSpec(("sensitivity",), sensitivity_ratios=(0.25, 0.5))
    )
    whole = read_sensitivity(done(tmp_path / "whole", asked))
    cut, real, measured = launch.create(tmp_path / "cut", asked, mine=True), masked, list[Any]()

    def stops(model: Any, graph: Any, removed: Any) -> Any:
        measured.append(removed)
        if len(measured) == 6:
            raise StopRequested("enough")
        return real(model, graph, removed)

    monkeypatch.setattr("core.evaluate.sensitivity.masked", stops)
    with pytest.raises(StopRequested):
        execute(cut)
    again(cut)
    assert read_sensitivity(cut).points == whole.points
    assert len(measured) == len(whole.points) + 1 and measured[6] == measured[5], "it goes on where it was"
    assert not (cut / CHECKPOINT).exists(), "the points stand in sensitivity.json now"


def test_exploring_makes_the_analyses_and_no_model(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, replace(spec, goal="explore"))
    assert staged(run_dir) == ["load", "graph", "similarity", "capture", "score", "sensitivity"]
    divergence = read_similarity(run_dir).divergence
    assert divergence.shape == (2, 4, 4)
    metrics = read_json(run_dir / METRICS)
    assert metrics["tau"] == spec.explore.tau and metrics["seconds"] > 0
    assert metrics["similar_heads"] == [
        {
            "layer": layer,
            "heads": 4,
            "pairs_below_tau": pairs_below(divergence[layer], metrics["tau"]),
            "candidates": algorithm_1(divergence[layer], metrics["tau"]),
        }
        for layer in (0, 1)
    ]
    assert set(read_scores(run_dir)) == {"taylor_second", "taylor_first", "l2", "l1", "random"}
    sensitivity = read_sensitivity(run_dir)
    assert {(point["layer"], point["kind"]) for point in sensitivity.points} == {
        (layer, kind) for layer in (0, 1) for kind in ("attention", "ffn")
    }
    points = [e.data for e in EventReader(run_dir / EVENTS).read() if e.type == "metric"]
    assert {(p["name"], p["step"], p["value"]) for p in points} == {
        ("sensitivity.baseline", 0, sensitivity.baseline_ppl),
        *((f"sensitivity.{p['kind']}.0.5", p["layer"], p["ppl"]) for p in sensitivity.points),
    }
    sizes = read_activations(run_dir)
    assert len(sizes.points) == 2 * 4 and sizes.tokens == 4 * 16 and sizes.text == "calibration.txt"
    assert not (run_dir / PLAN).exists() and not (run_dir / MODEL).exists()


def test_exploring_makes_only_what_is_asked_for(tmp_path: Path, spec: RunSpec) -> None:
    groups = replace(spec, goal="explore", explore=ExploreSpec(analyses=("groups",)))
    assert staged(done(tmp_path, groups)) == ["load", "graph"]
    asked = ExploreSpec(analyses=("sensitivity",), sensitivity_criterion="l2", sensitivity_tokens=64)
    run_dir = done(tmp_path, replace(spec, goal="explore", explore=asked))
    assert staged(run_dir) == ["load", "graph", "score", "sensitivity"]
    assert read_sensitivity(run_dir).criterion == "l2"


def test_features_are_measured_where_a_text_is_read_and_not_again(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(spec, goal="explore", explore=ExploreSpec(("scores",), ("l2",)))
    assert not (done(tmp_path / "weights", asked) / ACTIVATIONS).exists()
    run_dir = done(tmp_path / "text", replace(asked, explore=ExploreSpec(("scores",), ("wanda",))))
    first = read_activations(run_dir)
    (run_dir / ACTIVATIONS).write_text("{")
    again(run_dir)
    assert read_activations(run_dir) == first, "a damaged file is made again"
    monkeypatch.setattr("core.stages.steps.capture_statistics", lambda *_, **__: pytest.fail("it is there"))
    again(run_dir)


def test_a_wrong_request_is_found_before_anything_starts(spec: RunSpec, tmp_path: Path) -> None:
    check(spec)
    wrong: list[tuple[RunSpec, type[InputError], str]] = [
        (replace(spec, prune=PruneSpec("tailor_first")), UnknownNameError, "Did you mean 'taylor_first'"),
        (replace(spec, prune=PruneSpec(layers="1:9")), SpecError, "layers 0 to 1"),
        (replace(spec, calibration=DataSpec(str(tmp_path / "no.txt"))), DataError, "no.txt"),
        (replace(spec, evaluate=EvalSpec(str(tmp_path / "no.txt"))), DataError, "no.txt"),
        (replace(spec, calibration=DataSpec("none")), DataError, "taylor_first needs calibration text"),
        (
            replace(spec, calibration=replace(spec.calibration, samples=1000)),
            DataError,
            r"calibration\.txt' has 2,000 tokens, but 1000 windows of 16 need 16,000",
        ),
        (
            replace(spec, evaluate=replace(spec.evaluate, tokens=5000)),
            DataError,
            r"evaluation\.txt' has 2,000 tokens, enough for 125 windows of 16, but 5,000 tokens were asked",
        ),
        (
            replace(spec, prune=PruneSpec("similar_heads", options={"tau": 1.2})),
            SpecError,
            r"tau must be a number from 0 to 1, got 1\.2",
        ),
        (replace(spec, prune=PruneSpec("wanda", options={"tau": 0.2})), UnknownNameError, "option of wanda"),
        (replace(spec, prune=PruneSpec("l2", scope="al_am")), SpecError, "which are not scored by l2; take"),
        (replace(spec, model=ModelSpec(str(tmp_path))), ModelError, "config"),
    ]
    for request, error, said in wrong:
        with pytest.raises(error, match=said):
            check(request)
