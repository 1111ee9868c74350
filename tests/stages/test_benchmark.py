"""Benchmarks in runs: before and after the cut, kept task by task, and what is wrong said in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.cli.app import main
from core.errors import StopRequested
from core.files import read_json
from core.results.tasks import not_comparable, read_benchmarks
from core.runs import launch, watch
from core.runs.artifacts import EVENTS, METRICS, STOP
from core.runs.command_line import command_line
from core.runs.events import Event, EventReader
from core.runs.status import Status, write_status
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from core.stages.worker import execute
from tests.evaluate.scoring import NOT_OURS, PIQA, write_rows

pytestmark = NOT_OURS


@pytest.fixture(autouse=True)
def offline(offline: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor may any test here find the scores of another one."""
    monkeypatch.setenv("PRUNEVIZ_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    write_rows(tmp_path / "mirror" / "piqa", train=PIQA, validation=PIQA)
    return tmp_path / "mirror"


@pytest.fixture
def spec(tiny_llama_folder: Path, texts: tuple[Path, Path]) -> RunSpec:
    return RunSpec(
        goal="evaluate",
        model=ModelSpec(str(tiny_llama_folder), "cpu"),
        calibration=DataSpec(str(texts[0]), samples=4, length=16),
        prune=PruneSpec("l2", 0.5),
        evaluate=EvalSpec(
            str(texts[0]), 16, 64, ("the a",), 2, efficiency=False, tasks=("bundled_capitals",), limit=4
        ),
    )


def done(folder: Path, spec: RunSpec) -> Path:
    run_dir = launch.create(folder, spec, mine=True)
    execute(run_dir)
    return run_dir


def events(run_dir: Path, stage: str) -> list[Event]:
    return [e for e in EventReader(run_dir / EVENTS).read() if e.stage == stage]


def test_an_evaluation_scores_tasks_and_says_how(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, spec)
    found = read_json(run_dir / METRICS)["tasks"]["bundled_capitals"]
    assert {"acc", "acc_norm", "stderr", "n", "version", "num_fewshot", "template"} <= set(found)
    assert (found["n"], found["limit"], found["source"], found["own_task"]) == (4, 4, "bundled", True)
    told = events(run_dir, "benchmark")
    assert [e.data["value"] for e in told if e.type == "metric"] == [found["acc"]]
    assert [e.data["done"] for e in told if e.type == "progress"][-1] == 100
    assert any("n = 4" in e.data["text"] for e in told if e.type == "message")
    kept = read_benchmarks(run_dir)["model"]
    samples = kept.tasks["bundled_capitals"].samples
    assert len(samples) == 4 and all(sample.question and sample.answer for sample in samples)


def test_a_pruning_run_scores_both_models_alike(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = done(tmp_path, replace(spec, goal="prune"))
    metrics = read_json(run_dir / METRICS)
    kept = read_benchmarks(run_dir)
    assert list(kept) == ["dense", "pruned"]
    dense, pruned = (one.tasks["bundled_capitals"] for one in kept.values())
    assert not_comparable(dense, pruned) == "" and kept["dense"].weights != kept["pruned"].weights
    assert metrics["tasks_before"]["bundled_capitals"]["acc"] == dense.metrics["acc"]
    assert metrics["tasks_after"]["bundled_capitals"]["acc"] == pruned.metrics["acc"]
    stages = watch.refresh(run_dir).stages
    assert stages.index("benchmark dense") < stages.index("surgery") < stages.index("benchmark pruned")


def test_a_recovering_run_keeps_the_dense_scores_of_the_run_before(
    tmp_path: Path, spec: RunSpec, texts: tuple[Path, Path]
) -> None:
    cut = done(tmp_path, replace(spec, goal="prune"))
    train = RecoverSpec("lora", data=str(texts[0]), steps=1, batch=2, micro_batch=2, length=16, held=2)
    again = replace(spec, goal="recover", model=ModelSpec(str(cut), "cpu"), recover=train)
    run_dir = done(tmp_path, again)
    kept, before = read_benchmarks(run_dir), read_benchmarks(cut)
    assert list(kept) == ["dense", "pruned", "recovered"] and kept["dense"] == before["dense"]
    metrics = read_json(run_dir / METRICS)
    assert metrics["tasks_before"] == read_json(cut / METRICS)["tasks_before"]


def test_finished_tasks_of_an_interrupted_benchmark_are_kept(tmp_path: Path, spec: RunSpec) -> None:
    both = ("bundled_capitals", "bundled_next_sentence")
    asked = replace(spec, evaluate=replace(spec.evaluate, tasks=both))
    run_dir = launch.create(tmp_path, asked, mine=True)

    def stop_in_the_second(event: Event) -> None:
        if event.type == "metric" and event.data["name"] == "task.model.bundled_capitals":
            (run_dir / STOP).touch()

    with pytest.raises(StopRequested):
        execute(run_dir, stop_in_the_second)
    kept = read_benchmarks(run_dir)["model"].tasks
    assert list(kept) == ["bundled_capitals"] and len(kept["bundled_capitals"].samples) == 4
    write_status(run_dir, Status(created=1.0))
    execute(run_dir)
    found = read_json(run_dir / METRICS)["tasks"]
    assert {name: found[name]["cached"] for name in both} == {both[0]: True, both[1]: False}
    assert found[both[0]]["acc"] == kept["bundled_capitals"].value


def test_the_command_line_scores_from_a_mirror(
    tmp_path: Path, spec: RunSpec, texts: tuple[Path, Path], mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["evaluate", spec.model.source, "--ppl", str(texts[0]), "--window", "16", "--tokens", "64"]
    ask += ["--prompt", "", "--no-efficiency", "--device", "cpu", "--runs-dir", str(tmp_path / "runs")]
    ask += ["--tasks", "piqa,bundled_capitals", "--limit", "3", "--num-fewshot", "1"]
    assert main([*ask, "--benchmarks-dir", str(mirror), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {"ppl", "ppl_stderr", "tasks", "params", "macs", "latency_ms", "memory_gib"} <= set(shown)
    piqa = shown["tasks"]["piqa"]
    assert (piqa["n"], piqa["num_fewshot"], piqa["source"]) == (3, 1, "folder")
    assert piqa["data"]["name"] == str(mirror / "piqa")
    assert main([*ask, "--benchmarks-dir", str(mirror)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("piqa") and "±" in line and "folder" in line for line in lines)


def wrong(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err.strip().splitlines()[-1]


def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, spec: RunSpec, texts: tuple[Path, Path], mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    ask = ["evaluate", spec.model.source, "--ppl", str(texts[0]), "--window", "16", "--tokens", "64"]
    ask += ["--no-efficiency", "--device", "cpu", "--runs-dir", str(runs)]
    assert "Did you mean 'piqa'" in wrong(capsys, [*ask, "--tasks", "piqua"])
    said = wrong(capsys, [*ask, "--tasks", "boolq", "--benchmarks-dir", str(mirror)])
    assert "validation.jsonl is missing" in said
    said = wrong(
        capsys, [*ask, "--tasks", "piqa", "--num-fewshot", "2", "--benchmarks-dir", str(mirror / "no")]
    )
    assert "does not exist" in said
    assert "limit must be" in wrong(capsys, [*ask, "--tasks", "piqa", "--limit", "0"])
    assert not runs.exists()  # found before anything was started
    said = wrong(capsys, [*ask, "--prompt", "the " * 400])
    assert "The prompt has 400 tokens, but this model reads 256" in said
    many = ["--tasks", "bundled_next_sentence", "--num-fewshot", "30", "--limit", "2", "--prompt", ""]
    assert "tokens of context, the model has 256" in wrong(capsys, [*ask, *many])


def test_a_task_that_does_not_fit_leaves_the_others(tmp_path: Path, spec: RunSpec) -> None:
    tasks = ("bundled_capitals", "bundled_next_sentence")
    asked = replace(spec, evaluate=replace(spec.evaluate, tasks=tasks, num_fewshot=3))
    run_dir = done(tmp_path, asked)
    assert set(read_json(run_dir / METRICS)["tasks"]) == {"bundled_capitals"}
    told = [e.data["text"] for e in events(run_dir, "benchmark") if e.type == "message"]
    assert any(text.startswith("not scored: bundled_next_sentence") for text in told)


def test_the_command_that_is_shown_asks_for_the_same(spec: RunSpec, mirror: Path) -> None:
    asked = replace(spec, evaluate=replace(spec.evaluate, num_fewshot=2, benchmarks_dir=str(mirror)))
    words: Any = command_line(asked)
    for part in ("--tasks bundled_capitals", "--limit 4", "--num-fewshot 2", f"--benchmarks-dir {mirror}"):
        assert part in words


@pytest.mark.slow
def test_the_demo_model_scores_as_with_the_command_of_lm_eval(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both commands, on the same files: every value and standard error, to the last bit."""
    import lm_eval
    import yaml

    from core.evaluate.task_bundled import bundled_spec
    from core.models.sources import resolve

    monkeypatch.delenv("PRUNEVIZ_CACHE")  # the demo model is taken from there; its scores must not be
    demo = Path(resolve("demo").where)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / demo.name).symlink_to(demo)
    monkeypatch.setenv("PRUNEVIZ_CACHE", str(tmp_path / "cache"))
    piqa = {
        "include": str(Path(lm_eval.__file__).parent / "tasks" / "piqa" / "piqa.yaml"),
        "task": "mirrored_piqa",
        "dataset_path": "json",
        "training_split": None,
        "dataset_kwargs": {
            "data_files": {"validation": str(shared_data / "benchmarks" / "piqa" / "validation.jsonl")}
        },
    }
    theirs = {"piqa": piqa, "bundled_capitals": bundled_spec("bundled_capitals")[0]}
    (tmp_path / "tasks").mkdir()
    for name, one in theirs.items():
        (tmp_path / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(one))
    model = f"pretrained={demo},dtype=float32"
    command = [
        sys.executable,
        "-m",
        "lm_eval",
        "run",
        "--model",
        "hf",
        "--model_args",
        model,
        "--limit",
        "6",
    ]
    command += ["--device", "cpu", "--batch_size", "8", "--include_path", str(tmp_path / "tasks")]
    command += ["--tasks", "mirrored_piqa,bundled_capitals", "--output_path", str(tmp_path / "out.json")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    subprocess.run(command, check=True, env={**os.environ, **offline}, capture_output=True)
    (file,) = tmp_path.glob("out*.json")
    expected = json.loads(file.read_text())["results"]
    ask = ["evaluate", "demo", "--tasks", "piqa,bundled_capitals", "--limit", "6", "--prompt", ""]
    ask += ["--benchmarks-dir", str(shared_data / "benchmarks"), "--tokens", "256", "--no-efficiency"]
    ask += ["--device", "cpu", "--runs-dir", str(tmp_path / "runs"), "--json"]
    capsys.readouterr()
    assert main(ask) == 0
    found = json.loads(capsys.readouterr().out)["tasks"]
    for name, theirs_name in (("piqa", "mirrored_piqa"), ("bundled_capitals", "bundled_capitals")):
        for metric in ("acc", "acc_norm"):
            assert found[name][metric] == expected[theirs_name][f"{metric},none"]
            assert found[name][f"{metric}_stderr"] == expected[theirs_name][f"{metric}_stderr,none"]
        assert found[name]["n"] == 6
