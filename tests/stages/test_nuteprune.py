"""NutePrune as a run: everything is told, stopping waits for a step, and going on gives the same plan."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from core.cli.app import main
from core.errors import NotPrunableError, SpecError, StopRequested, StorageError, UnknownNameError
from core.files import read_json
from core.methods import METHODS
from core.models.saved import from_pretrained
from core.nuteprune import training
from core.recover import losses
from core.results.masks import read_masks
from core.runs import launch
from core.runs.artifacts import CHECKPOINT, METRICS, MODEL, STOP, read_plan, read_spec
from core.runs.events import Event, EventReader
from core.runs.status import Status, read_status, write_status
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.stages.check import check
from core.stages.nuteprune import FOLDER
from core.stages.worker import execute

OPTIONS = {"steps": 12, "batch": 2, "precision": "no", "lora_rank": 2, "gap": 0.1, "interval": 0.05,
           "held": 2, "measure_every": 4, "checkpoint_every": 3}  # fmt: skip


@pytest.fixture(scope="module")
def spec(tiny_llama_folder: Path, texts: tuple[Path, Path]) -> RunSpec:
    """A training run of a second."""
    return RunSpec(
        model=ModelSpec(str(tiny_llama_folder), "cpu"),
        calibration=DataSpec(str(texts[0]), samples=8, length=16),
        prune=PruneSpec("nuteprune", sparsity=0.3, options=dict(OPTIONS)),
        evaluate=EvalSpec(str(texts[1]), window=16, tokens=64, prompts=("the",), max_new_tokens=2),
    )


def options(spec: RunSpec, **changes: Any) -> RunSpec:
    return replace(spec, prune=replace(spec.prune, options={**spec.prune.options, **changes}))


def started(folder: Path, spec: RunSpec) -> Path:
    return launch.create(folder, spec, mine=True)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, spec: RunSpec) -> Path:
    """A run that was never interrupted."""
    run_dir = started(tmp_path_factory.mktemp("whole"), spec)
    execute(run_dir)
    return run_dir


def curves(run_dir: Path) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for event in EventReader(run_dir / "events.jsonl").read():
        if event.type == "metric":
            found.setdefault(event.data["name"], {})[event.data["step"]] = event.data["value"]
    return found


def test_a_run_leaves_a_smaller_model_within_a_unit_of_the_target(done: Path) -> None:
    metrics, plan = read_json(done / METRICS), read_plan(done)
    channel = 3 * 32 / plan.params_in_scope  # what one FFN channel costs
    assert abs(metrics["sparsity"] - 0.3) <= channel
    assert (plan.method, plan.scope) == ("nuteprune", "raw")
    model = from_pretrained(done / MODEL)
    assert sum(parameter.numel() for parameter in model.parameters()) == metrics["params_after"]
    assert not [name for name in model.state_dict() if "lora" in name]
    assert metrics["latency_ms_before"] > 0 and metrics["calibration_text"] == "calibration.txt"
    assert not (done / CHECKPOINT / FOLDER).exists()


def test_every_curve_has_its_points(done: Path) -> None:
    found = curves(done)
    for name in ("target", "expected", "actual", "kl", "lambda_1", "lambda_2", "teacher", "skipped"):
        assert sorted(found[f"train.{name}"]) == list(range(1, 13)), name
    for name in ("seconds_per_step", "memory_gib"):
        assert all(value > 0 for value in found[f"train.{name}"].values())
    texts = ["evaluation.txt", "World Factbook, evaluation part"]  # which nobody trains on
    for name in ("train.ppl_cut", *(f"train.ppl_cut.{text}" for text in texts)):
        assert sorted(found[name]) == [4, 8, 12]
    assert "train.layer_loss" not in found


def test_the_masks_at_the_end_are_the_plan(done: Path) -> None:
    state, plan = read_masks(done), read_plan(done)
    assert (state.step, state.steps) == (12, 12)
    assert state.factors["query_head"].shape == (2, 4) and state.stays["ffn_channel"].shape == (2, 48)
    for layer in range(2):
        gone = set(plan.removed.get(f"L{layer:02d}.ffn_channel", ()))
        assert {unit for unit in range(48) if not state.stays["ffn_channel"][layer, unit]} == gone
        assert {unit for unit in range(48) if not state.factors["ffn_channel"][layer, unit]} == gone


def test_stopping_waits_for_the_step_and_going_on_ends_the_same(
    tmp_path: Path, spec: RunSpec, done: Path
) -> None:
    run_dir = started(tmp_path, spec)

    def stop(event: Event) -> None:
        if event.type == "metric" and event.data["name"] == "train.target" and event.data["step"] == 5:
            (run_dir / STOP).write_text("")

    with pytest.raises(StopRequested):
        execute(run_dir, stop)
    said = [
        event.data["text"]
        for event in EventReader(run_dir / "events.jsonl").read()
        if event.type == "message"
    ]
    assert any("Stopped after step 5 of 12" in text for text in said)
    write_status(run_dir, Status(state="queued"))
    execute(run_dir)
    assert sorted(curves(run_dir)["train.kl"]) == list(range(1, 13))
    assert read_plan(run_dir) == read_plan(done)
    assert read_json(run_dir / METRICS)["ppl_after"] == read_json(done / METRICS)["ppl_after"]
    for name in (name for name in curves(done) if name.startswith("train.ppl_cut")):
        assert curves(run_dir)[name] == pytest.approx(curves(done)[name])


@pytest.mark.parametrize(
    "place", [7, pytest.param(2, marks=pytest.mark.slow), pytest.param(11, marks=pytest.mark.slow)]
)
def test_killed_at_any_step_and_resumed_gives_the_same_plan(
    place: int, tmp_path: Path, spec: RunSpec, done: Path
) -> None:
    run_dir = started(tmp_path, spec)
    code = f"""
import os, signal, sys
from pathlib import Path
from core.stages.worker import execute
def kill(event):
    if event.type == "metric" and event.data["name"] == "train.kl" and event.data["step"] == {place}:
        os.kill(os.getpid(), signal.SIGKILL)
execute(Path(sys.argv[1]), kill)
"""
    write_status(run_dir, Status(state="queued"))
    ended = subprocess.run([sys.executable, "-c", code, str(run_dir)], env={**os.environ}, cwd=launch.ROOT)
    assert ended.returncode == -signal.SIGKILL
    assert sorted(curves(run_dir)["train.kl"]) == list(range(1, place + 1))
    write_status(run_dir, Status(state="queued"))
    execute(run_dir)
    assert read_plan(run_dir) == read_plan(done)


def test_a_skipped_step_is_said_and_counted(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, original, calls = started(tmp_path, options(spec, steps=4)), losses.distillation, []

    def broken(*args: Any) -> Any:
        calls.append(1)
        return original(*args) * (math.nan if len(calls) == 2 else 1.0)

    monkeypatch.setattr(training, "distillation", broken)
    execute(run_dir)
    events = EventReader(run_dir / "events.jsonl").read()
    said = [event.data["text"] for event in events if event.type == "message"]
    assert any("Step 1 is skipped" in text for text in said) and any("1 skipped" in text for text in said)
    found = curves(run_dir)
    assert list(found["train.skipped"].values()) == [0.0, 1.0, 1.0, 1.0]
    assert sorted(found["train.kl"]) == [1, 3, 4]


def test_scores_may_order_the_start(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = started(tmp_path, options(spec, start_from="l2", start_spread=2.0, steps=2, lora_rank=0))
    execute(run_dir)
    assert "score" in read_status(run_dir).stages
    assert read_plan(run_dir).sparsity == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"gap": 0.3}, SpecError, "gap must be below the sparsity"),
        ({"interval": 0}, SpecError, "interval"),
        ({"interval": 0.4}, SpecError, "interval must be below the sparsity"),
        ({"steps": 0}, SpecError, "steps"),
        ({"warmup": 0.8, "settle": 0.4}, SpecError, "warmup and settle"),
        ({"batch": 3, "accumulate": 2}, SpecError, "accumulate must divide batch"),
        ({"processes": 0}, SpecError, "processes must be a whole number from 1 to 64, got 0"),
        (
            {"batch": 3, "processes": 2},
            SpecError,
            "divide batch, which is 3, got 2; write batch=4",
        ),
        ({"batch": 1, "processes": 2}, SpecError, "write batch=2"),
        ({"batch": 4, "processes": 2, "accumulate": 4}, SpecError, "batch / processes, which is 2, got 4"),
        ({"distillation": "some"}, SpecError, "distillation"),
        ({"rule": "lora_gradient", "lora_rank": 0}, SpecError, "write lora_rank=8"),
        (
            {"rule": "lora_gradient", "lora_targets": "query_value"},
            SpecError,
            "of ffn_channel has; write lora_t",
        ),
        ({"rule": "lora_gradient", "lora_targets": "ffn"}, SpecError, "of query_head has"),
        ({"start_from": "tailor_first"}, UnknownNameError, "taylor_first"),
        ({"stepz": 4}, UnknownNameError, "Did you mean 'steps'"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_starts(
    changes: dict[str, Any], error: type[Exception], says: str, spec: RunSpec
) -> None:
    with pytest.raises(error, match=says):
        check(options(spec, **changes))


def test_nothing_is_refitted_after_a_training(spec: RunSpec) -> None:
    with pytest.raises(SpecError, match="reconstruct must be none for a method that trains, got bias"):
        check(replace(spec, prune=replace(spec.prune, reconstruct="bias")))


def test_windows_longer_than_the_model_reads_are_refused(tmp_path: Path, spec: RunSpec) -> None:
    long = replace(spec, calibration=replace(spec.calibration, length=300))
    with pytest.raises(SpecError, match="length is 300, but this model reads 256 tokens"):
        check(long)
    with pytest.raises(SpecError, match="length is 300"):
        execute(started(tmp_path, long))


def test_a_target_of_its_own_for_a_kind_is_a_target_too(spec: RunSpec) -> None:
    low = replace(options(spec).prune, sparsity=0.05)
    with pytest.raises(SpecError, match="gap must be below the sparsity"):
        check(replace(spec, prune=low))
    check(replace(spec, prune=replace(low, kind_sparsity={"ffn_channel": 0.5})))


def test_a_target_below_every_unit_is_said(tmp_path: Path, spec: RunSpec) -> None:
    tiny = replace(options(spec, gap=1e-4, interval=1e-4, steps=2).prune, sparsity=1e-3)
    run_dir = started(tmp_path, replace(spec, prune=tiny))
    execute(run_dir)
    said = [event.data.get("text", "") for event in EventReader(run_dir / "events.jsonl").read()]
    assert any("no unit is as small as the target" in text for text in said)


def test_a_target_out_of_reach_fails_before_the_first_step(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = started(tmp_path, replace(spec, prune=replace(spec.prune, sparsity=0.99)))
    with pytest.raises(NotPrunableError, match="can go"):
        execute(run_dir)
    assert "train.kl" not in curves(run_dir)


def test_the_command_line_runs_it_and_lists_it(
    tmp_path: Path, spec: RunSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for key, value in OPTIONS.items() for word in ("--set", f"{key}={value}")]
    code = main(
        ["prune", spec.model.source, "--method", "nuteprune", "--sparsity", "0.25", "--steps", "3",
         *given[2:], "--calibration", spec.calibration.name, "--samples", "8", "--length", "16",
         "--ppl", spec.evaluate.text, "--window", "16", "--tokens", "64", "--prompt", "",
         "--no-efficiency", "--device", "cpu", "--runs-dir", str(tmp_path), "--json"]
    )  # fmt: skip
    result = json.loads(capsys.readouterr().out)
    assert code == 0 and result["sparsity"] == pytest.approx(0.25, abs=0.02)
    asked = read_spec(Path(result["run_dir"]))
    assert asked.prune.options["steps"] == 3 and asked.recover.method == "none"
    assert main(["methods", "--json"]) == 0
    (listed,) = [one for one in json.loads(capsys.readouterr().out)["methods"] if one["name"] == "nuteprune"]
    assert (
        set(listed["presets"]) == {"demo", "demo-distill", *(f"paper-7b-{n}" for n in (20, 25, 50))}
        and listed["trains"]
    )
    assert set(listed["options"]) == set(METHODS["nuteprune"].options)


def test_a_full_disk_at_a_checkpoint_fails_the_run_and_keeps_the_one_before(
    tmp_path: Path, spec: RunSpec, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, original = started(tmp_path, spec), save_file

    def full(arrays: Any, path: Path, metadata: Any = None) -> None:
        if "nuteprune" in path.name and json.loads(metadata["state"])["step"] >= 6:
            raise OSError(28, "No space left on device")
        original(arrays, path, metadata=metadata)

    monkeypatch.setattr("core.files.save_file", full)
    with pytest.raises(StorageError, match="free some space"):
        execute(run_dir)
    monkeypatch.undo()
    write_status(run_dir, Status(state="queued"))
    execute(run_dir)
    assert read_plan(run_dir) == read_plan(done)
