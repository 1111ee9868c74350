"""Distillation in runs: the dense model teaches, live or from disk, and whatever happens ends the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.cli.app import main
from core.errors import ModelError, SpecError, StopRequested
from core.results.sweep import read_sweep
from core.runs import launch, watch
from core.runs.artifacts import STOP
from core.runs.events import Event
from core.runs.status import Status, write_status
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.model import ModelSpec
from core.spec.nuteprune import Settings
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from core.stages.check import check
from core.stages.worker import execute
from tests.conftest import llama_config, random_model
from tests.stages.test_recover import TRAIN, done, events, metrics, words

__all__ = ["words"]
DISTIL = replace(TRAIN, method="distill", learning_rate=5e-3, dropout=0.0, steps=8)


@pytest.fixture(scope="module")
def spec(tiny_llama_folder: Path, words: list[Path]) -> RunSpec:
    return RunSpec(
        model=ModelSpec(str(tiny_llama_folder), "cpu"),
        calibration=DataSpec(str(words[0]), samples=4, length=16),
        prune=PruneSpec("l2", 0.3),
        recover=replace(DISTIL, data=str(words[0])),
        evaluate=EvalSpec(str(words[1]), 16, 128, (), 4, efficiency=False, also=()),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, spec: RunSpec) -> Path:
    return done(tmp_path_factory.mktemp("runs"), spec)


def told(run_dir: Path) -> list[str]:
    return [event.data["text"] for event in events(run_dir, "message")]


def test_the_student_comes_nearer_to_the_dense_model(finished: Path) -> None:
    facts = metrics(finished)
    assert facts["recover_method"] == "distill" and facts["recover_best_step"] > 0
    assert facts["recover_held_kl_after"] < facts["recover_held_kl_before"]
    assert any("divergence from the teacher" in text for text in told(finished))
    named = {event.data["name"] for event in events(finished, "metric") if "recover" in event.data["name"]}
    assert {"recover.loss", "recover.held_kl"} <= named
    assert not named & {"recover.kl", "recover.next_token_loss", "recover.layer_loss"}
    assert "taught by the dense model" in (finished / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    "more",
    [
        {"targets": "weights"},
        {"next_token": 0.5, "layer_weight": 0.5},
        {"top_k": 8, "temperature": 2.0},
    ],
    ids=["weights", "sum", "kept"],
)
def test_every_way_helps(tmp_path: Path, spec: RunSpec, more: dict[str, Any]) -> None:
    run_dir = done(tmp_path, replace(spec, recover=replace(spec.recover, precision="bf16", **more)))
    facts = metrics(run_dir)
    assert facts["recover_precision"] == "bf16"
    assert facts["recover_held_kl_after"] < facts["recover_held_kl_before"]
    assert not (run_dir / "checkpoint" / "teacher").exists()
    named = {event.data["name"] for event in events(run_dir, "metric")}
    parts = {"recover.kl", "recover.next_token_loss", "recover.layer_loss"}
    assert named & parts == (parts if "next_token" in more else set())


def test_hidden_channels_that_went_are_not_compared(tmp_path: Path, spec: RunSpec) -> None:
    fewer = replace(spec.prune, kinds=("residual_channel",))
    run_dir = done(tmp_path, replace(spec, prune=fewer, recover=replace(spec.recover, layer_weight=1.0)))
    assert metrics(run_dir)["recover_held_kl_after"] < metrics(run_dir)["recover_held_kl_before"]


@pytest.mark.parametrize("more", [{}, {"targets": "weights"}, {"top_k": 8}], ids=["live", "weights", "kept"])
def test_stopped_in_every_stage_and_resumed_gives_the_same(
    tmp_path: Path, spec: RunSpec, more: dict[str, Any]
) -> None:
    asked = replace(spec, recover=replace(spec.recover, **more))
    expected, run_dir = metrics(done(tmp_path / "whole", asked)), launch.create(tmp_path, asked, mine=True)
    stops = [("progress", "teach"), ("metric", "recover")] if "top_k" in more else [("metric", "recover")]
    for kind, stage in stops:

        def stop_there(event: Event, kind: str = kind, stage: str = stage) -> None:
            where = watch.refresh(run_dir).stage
            if where == stage and (event.type == kind or kind == "progress"):
                (run_dir / STOP).touch()

        with pytest.raises(StopRequested):
            execute(run_dir, stop_there)
        write_status(run_dir, Status(created=1.0))
    execute(run_dir)
    assert metrics(run_dir) == expected


def test_kept_logits_serve_other_runs_and_refuse_other_texts(
    tmp_path: Path, spec: RunSpec, words: list[Path]
) -> None:
    shared = replace(spec.recover, top_k=8, logits=str(tmp_path / "shared"))
    first = done(tmp_path, replace(spec, recover=shared))
    assert any("are still to be read" in text for text in told(first))
    again = done(tmp_path, replace(spec, recover=shared))
    assert any("; 0 are still to be read" in text for text in told(again))
    assert metrics(first) == metrics(again)
    other = replace(spec, recover=replace(shared, data=str(words[1])))
    run_dir = launch.create(tmp_path, other, mine=True)
    with pytest.raises(Exception, match=r"keeps what .* says of training\.txt .*of evaluation\.txt"):
        execute(run_dir)


def test_a_pruned_run_is_taught_by_the_model_it_was(
    tmp_path: Path, spec: RunSpec, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = done(tmp_path, replace(spec, recover=RecoverSpec()))
    again = replace(spec, goal="recover", model=ModelSpec(str(cut), "cpu"))
    check(again)
    for top_k in (0, 8):
        facts = metrics(done(tmp_path, replace(again, recover=replace(spec.recover, top_k=top_k))))
        assert facts["recover_held_kl_after"] < facts["recover_held_kl_before"]
        if not top_k:
            assert facts["recover_held_kl_after"] == metrics(finished)["recover_held_kl_after"]
    capsys.readouterr()
    assert main(["recover", str(cut), "--recover", "distill", "--steps", "0"]) == 2
    assert "steps must be" in capsys.readouterr().err


def test_a_model_that_nobody_knows_needs_a_named_teacher(
    tmp_path: Path, spec: RunSpec, finished: Path
) -> None:
    shutil.copytree(finished / "model", tmp_path / "alone")
    lost = replace(spec, goal="recover", model=ModelSpec(str(tmp_path / "alone"), "cpu"))
    with pytest.raises(ModelError, match="name it with --teacher"):
        check(lost)
    check(replace(lost, recover=replace(lost.recover, teacher=spec.model.source)))


def test_a_teacher_with_other_tokens_is_refused(tmp_path: Path, spec: RunSpec) -> None:
    shutil.copytree(spec.model.source, tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    raw = json.loads(path.read_text())
    vocabulary = raw["model"]["vocab"]
    names = list(vocabulary)
    vocabulary[names[-1]], vocabulary[names[-2]] = vocabulary[names[-2]], vocabulary[names[-1]]
    path.write_text(json.dumps(raw))
    with pytest.raises(SpecError, match="2 with other numbers; give a --teacher with the same tokenizer"):
        check(replace(spec, recover=replace(spec.recover, teacher=str(tmp_path / "other"))))


def test_a_file_in_the_place_of_a_folder_is_refused_before_anything_starts(
    spec: RunSpec, words: list[Path]
) -> None:
    kept = replace(spec.recover, top_k=8, logits=str(words[0]))
    for folder in (words[0], words[0] / "below"):
        with pytest.raises(SpecError, match="teacher-logits must be a folder, got the file"):
            check(replace(spec, recover=replace(kept, logits=str(folder))))


def test_layers_of_another_shape_are_refused_before_anything_starts(
    tmp_path: Path, spec: RunSpec, tiny_tokenizer: Any
) -> None:
    random_model(llama_config(num_hidden_layers=1)).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    taught = replace(spec.recover, teacher=str(tmp_path))
    check(replace(spec, recover=taught))
    with pytest.raises(SpecError, match=r"has 1 layers of 32 channels, and .* 2 of 32; give another"):
        check(replace(spec, recover=replace(taught, layer_weight=1.0)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"method": "lora", "targets": "weights"}, "distill trains weights, too"),
        ({"top_k": 4, "layer_weight": 1.0}, "layer_weight must be 0 with top_k"),
        ({"logits": "folder"}, "--teacher-top-k"),
        ({"temperature": 0.0}, "temperature"),
        ({"next_token": -1.0}, "next-token-weight"),
    ],
)
def test_what_does_not_fit_together_is_said(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        replace(DISTIL, **wrong)


def test_training_ends_where_nothing_is_gained(tmp_path: Path, spec: RunSpec) -> None:
    """Steps that are left are not taken, which is said."""
    ruinous = replace(spec.recover, learning_rate=50.0, steps=12, eval_every=1, patience=2)
    run_dir = done(tmp_path, replace(spec, recover=ruinous))
    steps = [e.data["step"] for e in events(run_dir, "metric") if e.data["name"] == "recover.learning_rate"]
    assert len(steps) < 12 and metrics(run_dir)["recover_ended"] == steps[-1]


def test_nuteprune_is_distilled_in_the_same_run(tmp_path: Path, spec: RunSpec) -> None:
    """Masks are learned, then the cut model is taught, then measured: stages of one run."""
    options = {"steps": 4, "measure_every": 4, "held": 2, "checkpoint_every": 2, "start": Settings().start}
    asked = replace(spec, prune=PruneSpec("nuteprune", 0.3, options={**options, "stage_1": False}))
    run_dir = done(tmp_path, asked)
    stages = watch.refresh(run_dir).stages
    assert [name for name in stages if name in ("train", "surgery", "recover", "evaluate")] == [
        "train", "surgery", "recover", "evaluate",
    ]  # fmt: skip
    assert metrics(run_dir)["recover_held_kl_after"] < metrics(run_dir)["recover_held_kl_before"]


def test_how_far_every_model_is_from_the_dense_one_is_measured(tmp_path: Path, spec: RunSpec) -> None:
    """In a run that cuts and trains, in one that only trains, and at every point of a sweep, alike."""
    cut = done(tmp_path, replace(spec, recover=RecoverSpec()))
    whole = metrics(done(tmp_path, spec))
    again = metrics(done(tmp_path, replace(spec, goal="recover", model=ModelSpec(str(cut), "cpu"))))
    assert 0 < whole["kl_after"] < whole["kl_pruned"] and "kl_before" not in whole
    assert whole["kl_pruned"] == pytest.approx(metrics(cut)["kl_after"], rel=1e-4)
    for name in ("kl_pruned", "kl_after", "kl_recovered", "kl_stderr_after"):
        assert again[name] == pytest.approx(whole[name], rel=1e-4)
        assert whole["perplexities"][0][name] == whole[name]
    assert not (cut / "checkpoint" / "references").exists()
    axes = SweepSpec(methods=("l2",), sparsities=(0.3,), samples=(4,))
    (point,) = read_sweep(done(tmp_path, replace(spec, goal="sweep", sweep=axes))).points
    assert point.kl == pytest.approx(metrics(cut)["kl_after"], rel=1e-4)
    assert point.kl_stderr == pytest.approx(metrics(cut)["kl_stderr_after"], rel=1e-3)
