"""The whole story on a tiny model: artifacts, metrics, resuming after a stop at any stage."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from core import artifacts, launch, measures, pipeline, refitting, stages
from core.artifacts import CHECKPOINT, METRICS, MODEL, PLAN, SAMPLES, SCORES, WIDTHS, Status
from core.criteria import CRITERIA
from core.errors import (
    DataError,
    InputError,
    ModelError,
    SpecError,
    StopRequested,
    StorageError,
    UnknownNameError,
)
from core.evaluate.efficiency_results import read_efficiency
from core.evaluate.perplexity_results import read_perplexities
from core.events import Event, EventReader
from core.spec import DataSpec, EvalSpec, ExploreSpec, ModelSpec, PruneSpec, RunSpec
from core.worker import execute
from tests.conftest import WORDS

METRIC_KEYS = {
    *(f"{name}_{side}" for side in ("before", "after") for name in (
        "params", "macs", "kv_bytes_per_token", "ppl", "ppl_stderr", "latency_ms", "tokens_per_second",
        "latency_spread_ms", "tokens_per_second_spread", "memory_gib",
    )),
    "sparsity", "sparsity_total", "ppl_text", "ppl_window", "ppl_tokens", "ppl_windows", "calibration_text",
    "seconds",
}  # fmt: skip
VERBS = ["load", "graph", "baseline", "capture", "score", "plan", "surgery", "evaluate", "export"]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two texts of words that the tiny tokenizer knows."""
    folder, draw = tmp_path_factory.mktemp("texts"), random.Random(0)
    vocabulary = WORDS.split()
    paths = [folder / "calibration.txt", folder / "evaluation.txt"]
    for path in paths:
        path.write_text(" ".join(draw.choices(vocabulary, k=2000)))
    return paths


@pytest.fixture(scope="module")
def spec(tiny_llama_folder: Path, words: list[Path]) -> RunSpec:
    """A pruning run that takes a second."""
    return RunSpec(
        model=ModelSpec(str(tiny_llama_folder), "cpu"),
        calibration=DataSpec(str(words[0]), samples=4, length=16),
        explore=ExploreSpec(sensitivity_tokens=64),
        prune=PruneSpec("taylor_first", 0.3),
        evaluate=EvalSpec(str(words[1]), 16, 128, ("the a of",), 4, efficiency=False),
    )


def done(folder: Path, spec: RunSpec) -> Path:
    run_dir = launch.create(folder, spec, mine=True)
    execute(run_dir)
    return run_dir


def again(run_dir: Path) -> None:
    """Resume in this process."""
    artifacts.write_status(run_dir, Status(created=1.0))
    execute(run_dir)


def outcome(run_dir: Path) -> tuple[Any, Any, Any]:
    """Everything a run decides and measures; how long that took is no result."""
    metrics = artifacts.read_json(run_dir / METRICS)
    metrics.pop("seconds")
    samples = [
        (one["prompt"], one["dense"]["text"], one["pruned"]["text"])
        for one in artifacts.read_json(run_dir / SAMPLES)
    ]
    return artifacts.read_plan(run_dir), metrics, samples


def staged(run_dir: Path) -> list[str]:
    return [event.stage for event in EventReader(run_dir / artifacts.EVENTS).read() if event.type == "stage"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, spec: RunSpec) -> tuple[Any, Any, Any]:
    return outcome(done(tmp_path_factory.mktemp("whole"), spec))


@pytest.mark.parametrize("how", ["bias", "least_squares", "pre_pruning"])
def test_a_run_that_refits_meets_its_target_and_resumes_as_if_never_stopped(
    tmp_path: Path, spec: RunSpec, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = "second_moment" if how == "pre_pruning" else spec.prune.method  # units can be chosen anew
    refit = replace(spec.prune, method=method, reconstruct=how, scope="standardised")
    asked = replace(spec, prune=refit)
    whole = done(tmp_path / "whole", asked)
    assert "reconstruct" in staged(whole)
    assert not (whole / CHECKPOINT / artifacts.RECONSTRUCTED).exists(), "only a resumed run needs it"
    plan, metrics = artifacts.read_plan(whole), artifacts.read_json(whole / METRICS)
    gone = metrics["params_before"] - metrics["params_after"]
    assert plan.biases and abs(gone - 0.3 * plan.params_in_scope) <= 96
    cut = launch.create(tmp_path / "cut", asked, mine=True)
    operate = stages.operate
    monkeypatch.setattr(stages, "operate", lambda *_: (_ for _ in ()).throw(StorageError("full")))
    with pytest.raises(StorageError):
        execute(cut)
    monkeypatch.setattr(stages, "operate", operate)
    monkeypatch.setattr(refitting, "refit", lambda *_, **__: pytest.fail("what was refitted is kept"))
    again(cut)
    assert outcome(cut) == outcome(whole)


def test_a_pruning_run_leaves_everything_the_directory_should_hold(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, replace(spec, evaluate=replace(spec.evaluate, efficiency=True)))
    status = launch.refresh(run_dir)
    assert status.state == "finished" and status.stages == VERBS == staged(run_dir)
    metrics = artifacts.read_json(run_dir / METRICS)
    assert set(metrics) == METRIC_KEYS
    assert all(value is not None for value in metrics.values())
    kept = read_perplexities(run_dir)
    assert list(kept) == ["dense", "pruned"] and kept["dense"].ids == kept["pruned"].ids
    assert len(kept["dense"].losses) == metrics["ppl_windows"] == 128 // 16
    errors = [metrics["ppl_stderr_before"], metrics["ppl_stderr_after"]]
    assert [one.stderr for one in kept.values()] == errors
    plan = artifacts.read_plan(run_dir)
    assert metrics["params_after"] < metrics["params_before"]
    # The target is met within one unit: an FFN channel owns 3 x 32 parameters here.
    removed = metrics["params_before"] - metrics["params_after"]
    assert abs(removed - 0.3 * plan.params_in_scope) <= 96
    assert metrics["sparsity"] == pytest.approx(removed / plan.params_in_scope)
    widths = artifacts.read_json(run_dir / WIDTHS)
    assert widths["dense"] == {"query_heads": 4, "kv_heads": 2, "ffn": 48, "hidden": 32}
    for layer in widths["layers"]:
        gone = [
            len(plan.removed.get(f"L{layer['layer']:02d}.{kind}", ()))
            for kind in ("query_head", "ffn_channel")
        ]
        assert [layer["query_heads"], layer["ffn"]] == [4 - gone[0], 48 - gone[1]]
    (sample,) = artifacts.read_json(run_dir / SAMPLES)
    assert sample["prompt"] == "the a of" and set(sample["dense"]) == {"text", "tokens_per_second"}
    extra = artifacts.read_spec(run_dir).extra
    assert len(extra["calibration"]["sha256"]) == 64 and extra["versions"]["torch"]
    points = [e.data for e in EventReader(run_dir / artifacts.EVENTS).read() if e.type == "metric"]
    assert [(point["name"], point["value"]) for point in points] == [
        ("ppl_before", metrics["ppl_before"]), ("ppl_after", metrics["ppl_after"])
    ]  # fmt: skip


def test_the_saved_model_gives_the_perplexity_of_the_run(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, spec)
    metrics = artifacts.read_json(run_dir / METRICS)
    measured = done(tmp_path, replace(spec, goal="evaluate", model=ModelSpec(str(run_dir), "cpu")))
    found = artifacts.read_json(measured / METRICS)
    assert found["ppl"] == pytest.approx(metrics["ppl_after"], rel=1e-4)
    assert (found["params"], found["macs"]) == (metrics["params_after"], metrics["macs_after"])
    assert found["tasks"] == {} and found["latency_ms"] is None
    dense = artifacts.read_json(done(tmp_path, replace(spec, goal="evaluate")) / METRICS)
    assert (dense["params"], dense["macs"]) == (metrics["params_before"], metrics["macs_before"])


def test_a_seed_gives_the_same_result_again(tmp_path: Path, spec: RunSpec, uninterrupted: Any) -> None:
    assert outcome(done(tmp_path, spec)) == uninterrupted
    other = outcome(done(tmp_path, replace(spec, seed=1)))
    assert other[0].removed != uninterrupted[0].removed


@pytest.mark.parametrize("stage", ["graph", "score", "plan", "evaluate", "export"])
def test_stopped_at_any_stage_and_resumed_gives_the_same(
    tmp_path: Path, spec: RunSpec, uninterrupted: Any, stage: str
) -> None:
    run_dir = launch.create(tmp_path, spec, mine=True)

    def stop_there(event: Event) -> None:
        if event.type == "stage" and event.stage == stage:
            raise StopRequested("here")

    with pytest.raises(StopRequested):
        execute(run_dir, stop_there)
    assert launch.refresh(run_dir).state == "stopped"
    again(run_dir)
    assert outcome(run_dir) == uninterrupted


@pytest.mark.parametrize("name", [artifacts.GROUPS, SCORES, PLAN, f"{CHECKPOINT}/baseline.json"])
def test_a_damaged_artifact_is_made_again(
    tmp_path: Path, spec: RunSpec, uninterrupted: Any, name: str
) -> None:
    run_dir = done(tmp_path, spec)
    path = run_dir / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again(run_dir)
    assert outcome(run_dir) == uninterrupted


def test_finished_stages_are_not_repeated(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = done(tmp_path, spec)
    before = {name: (run_dir / name).stat().st_mtime_ns for name in (artifacts.GROUPS, SCORES, PLAN)}

    def repeated(*_: object, **__: object) -> None:
        raise AssertionError("this stage was finished")

    for name in ("discover", "capture_statistics", "score_units", "allocate"):
        monkeypatch.setattr(stages, name, repeated)
    again(run_dir)
    assert {name: (run_dir / name).stat().st_mtime_ns for name in before} == before


def test_the_plan_is_written_before_anything_is_cut(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the saw broke")

    monkeypatch.setattr(stages, "operate", broken)
    run_dir = launch.create(tmp_path, spec, mine=True)
    with pytest.raises(RuntimeError, match="the saw broke"):
        execute(run_dir)
    assert artifacts.read_plan(run_dir).sparsity > 0 and (run_dir / WIDTHS).exists()


def test_a_full_disk_while_saving_loses_nothing(
    tmp_path: Path, spec: RunSpec, uninterrupted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run_dir = launch.create(tmp_path, spec, mine=True)
    with monkeypatch.context() as patched, pytest.raises(StorageError, match="free some space"):
        patched.setattr(stages, "save", full)
        execute(run_dir)
    status = launch.refresh(run_dir)
    assert status.state == "failed" and status.stage == "export"
    assert artifacts.read_plan(run_dir) == uninterrupted[0]
    again(run_dir)
    assert outcome(run_dir) == uninterrupted and (run_dir / MODEL).is_dir()


def test_a_model_too_large_for_two_copies_is_timed_before_the_cut(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "roomy", lambda loaded: False)
    forbidden = SimpleNamespace(deepcopy=lambda model: pytest.fail("a second copy was made"))
    monkeypatch.setattr(measures, "copy", forbidden)
    run_dir = done(tmp_path, replace(spec, evaluate=replace(spec.evaluate, efficiency=True)))
    metrics = artifacts.read_json(run_dir / METRICS)
    assert metrics["latency_ms_before"] > 0 and metrics["latency_ms_after"] > 0
    kept = artifacts.read_json(run_dir / artifacts.EFFICIENCY)
    assert {name: one["latency_ms"] for name, one in kept.items()} == {
        "dense": metrics["latency_ms_before"], "pruned": metrics["latency_ms_after"]
    }  # fmt: skip
    for side, one in read_efficiency(run_dir).items():
        ending = {"dense": "before", "pruned": "after"}[side]
        assert metrics[f"latency_spread_ms_{ending}"] == one.latency_spread_ms > 0
        assert metrics[f"tokens_per_second_spread_{ending}"] == one.tokens_per_second_spread > 0
        assert len(one.timed("latency_ms").rounds_ms) == one.timed("latency_ms").repeats
    card = (run_dir / artifacts.MODEL / "README.md").read_text()
    assert re.search(r"\| latency, ms \| \d+\.\d ± \d+\.\d \| \d+\.\d ± \d+\.\d \|", card)
    assert "times ± half of slowest minus fastest" in card


def test_models_in_8_bits_are_measured_beside_the_others(tmp_path: Path, spec: RunSpec) -> None:
    asked = replace(spec, evaluate=replace(spec.evaluate, efficiency=True, int8=True))
    run_dir = done(tmp_path, asked)
    found = artifacts.read_json(run_dir / METRICS)
    for side in ("before", "after"):
        assert found[f"memory_gib_int8_{side}"] < found[f"memory_gib_{side}"]
        assert found[f"ppl_int8_{side}"] == pytest.approx(found[f"ppl_{side}"], rel=0.1)
        assert found[f"ppl_int8_{side}"] != found[f"ppl_{side}"]
    names = ["dense", "pruned", "dense int8", "pruned int8"]
    assert list(artifacts.read_json(run_dir / artifacts.EFFICIENCY)) == names
    alone = done(tmp_path, replace(asked, goal="evaluate", model=ModelSpec(str(run_dir), "cpu")))
    found_alone = artifacts.read_json(alone / METRICS)
    assert found_alone["ppl_int8"] == pytest.approx(found["ppl_int8_after"], rel=1e-3)
    with pytest.raises(SpecError, match="int8"):
        replace(asked.evaluate, efficiency=False)


def test_a_method_without_data_reads_none(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, replace(spec, prune=PruneSpec("random", 0.3)))
    assert staged(run_dir) == [verb for verb in VERBS if verb != "capture"]
    assert artifacts.read_json(run_dir / METRICS)["calibration_text"] is None


def test_a_model_can_calibrate_itself(tmp_path: Path, spec: RunSpec) -> None:
    own = replace(spec, calibration=DataSpec("self", 3, 16), prune=PruneSpec("second_moment", 0.3))
    pipeline.check(own)
    run_dir = done(tmp_path, own)
    text = "text the model wrote itself"
    assert artifacts.read_json(run_dir / METRICS)["calibration_text"] == text
    recorded = artifacts.read_spec(run_dir).extra
    assert recorded["calibration"]["name"] == text and len(recorded["calibration"]["sha256"]) == 64
    assert "versions" in recorded and "evaluation" in recorded


def test_without_text_only_criteria_that_need_none_run(tmp_path: Path, spec: RunSpec) -> None:
    none = replace(spec, calibration=DataSpec("none"), prune=PruneSpec("second_moment_data_free", 0.3))
    pipeline.check(none)
    run_dir = done(tmp_path, none)
    assert artifacts.read_json(run_dir / METRICS)["calibration_text"] is None
    assert "calibration" not in artifacts.read_spec(run_dir).extra


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
    scores = artifacts.read_scores(run_dir)
    assert list(scores) and set(scores) == set(CRITERIA.names())
    for group in scores["l1"]:
        assert np.array_equal(scores["similar_heads"][group], scores["second_moment"][group])
        assert (scores["fusion"][group] >= scores["taylor_mix"][group]).all()


def test_only_the_layers_asked_for_are_cut(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, replace(spec, prune=PruneSpec("l2", 0.3, layers="1:2")))
    assert {group[:3] for group in artifacts.read_plan(run_dir).removed} == {"L01"}


def test_the_same_text_for_both_is_said(tmp_path: Path, spec: RunSpec, words: list[Path]) -> None:
    same = replace(spec, evaluate=replace(spec.evaluate, text=str(words[0])))
    told = [
        e.data["text"]
        for e in EventReader(done(tmp_path, same) / artifacts.EVENTS).read()
        if e.type == "message"
    ]
    assert any("same text" in text for text in told)
    told = [
        e.data["text"]
        for e in EventReader(done(tmp_path, spec) / artifacts.EVENTS).read()
        if e.type == "message"
    ]
    assert not any("same text" in text for text in told)


def test_exploring_makes_the_analyses_and_no_model(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, replace(spec, goal="explore"))
    assert staged(run_dir) == ["load", "graph", "similarity", "capture", "score", "sensitivity"]
    assert artifacts.read_similarity(run_dir).divergence.shape == (2, 4, 4)
    assert set(artifacts.read_scores(run_dir)) == {"taylor_first", "l2", "l1", "random"}
    sensitivity = artifacts.read_sensitivity(run_dir)
    assert {(point["layer"], point["kind"]) for point in sensitivity.points} == {
        (layer, kind) for layer in (0, 1) for kind in ("attention", "ffn")
    }
    points = [e.data for e in EventReader(run_dir / artifacts.EVENTS).read() if e.type == "metric"]
    assert {(p["name"], p["step"], p["value"]) for p in points} == {
        ("sensitivity.baseline", 0, sensitivity.baseline_ppl),
        *((f"sensitivity.{p['kind']}.0.5", p["layer"], p["ppl"]) for p in sensitivity.points),
    }
    assert not (run_dir / PLAN).exists() and not (run_dir / MODEL).exists()


def test_exploring_makes_only_what_is_asked_for(tmp_path: Path, spec: RunSpec) -> None:
    groups = replace(spec, goal="explore", explore=ExploreSpec(analyses=("groups",)))
    assert staged(done(tmp_path, groups)) == ["load", "graph"]
    asked = ExploreSpec(analyses=("sensitivity",), sensitivity_criterion="l2", sensitivity_tokens=64)
    run_dir = done(tmp_path, replace(spec, goal="explore", explore=asked))
    assert staged(run_dir) == ["load", "graph", "score", "sensitivity"]
    assert artifacts.read_sensitivity(run_dir).criterion == "l2"


def test_a_wrong_request_is_found_before_anything_starts(spec: RunSpec, tmp_path: Path) -> None:
    pipeline.check(spec)
    wrong: list[tuple[RunSpec, type[InputError], str]] = [
        (replace(spec, prune=PruneSpec("tailor_first")), UnknownNameError, "Did you mean 'taylor_first'"),
        (replace(spec, prune=PruneSpec(layers="1:9")), SpecError, "layers 0 to 1"),
        (replace(spec, calibration=DataSpec(str(tmp_path / "no.txt"))), DataError, "no.txt"),
        (replace(spec, evaluate=EvalSpec(str(tmp_path / "no.txt"))), DataError, "no.txt"),
        (replace(spec, calibration=DataSpec("none")), DataError, "taylor_first needs calibration text"),
        (
            replace(spec, prune=PruneSpec("similar_heads", options={"tau": 1.2})),
            SpecError,
            r"tau must be a number from 0 to 1, got 1\.2",
        ),
        (replace(spec, prune=PruneSpec("wanda", options={"tau": 0.2})), UnknownNameError, "option of wanda"),
        (replace(spec, model=ModelSpec(str(tmp_path))), ModelError, "config"),
    ]
    for request, error, said in wrong:
        with pytest.raises(error, match=said):
            pipeline.check(request)


def test_a_killed_worker_process_is_resumed_to_the_same_result(
    tmp_path: Path, spec: RunSpec, uninterrupted: Any
) -> None:
    run_dir = launch.start(tmp_path / "runs", spec)
    reached(run_dir, "capture")
    pid = launch.refresh(run_dir).pid
    if pid is not None and launch.refresh(run_dir).state == "running":
        os.kill(pid, signal.SIGKILL)
        reached(run_dir, "crashed")
        assert launch.refresh(run_dir).error["log"]  # type: ignore[index]
        launch.resume(run_dir)
    reached(run_dir, "finished")
    assert outcome(run_dir) == uninterrupted
    until_gone(tmp_path / "runs")


def reached(run_dir: Path, place: str) -> None:
    end = time.monotonic() + 120
    while True:
        status = launch.refresh(run_dir)
        if place in (status.state, status.stage) or (place in VERBS and status.state == "finished"):
            return
        assert status.state not in ("failed", "damaged") and time.monotonic() < end, json.dumps(vars(status))
        time.sleep(0.01)


def until_gone(runs_dir: Path) -> None:
    end = time.monotonic() + 60
    while any(child.poll() is None for child in launch._children):
        assert time.monotonic() < end, "a worker stays"
        time.sleep(0.02)
