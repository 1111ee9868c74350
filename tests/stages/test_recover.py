"""Recovery in runs: beside the cut, of an existing run, headless, and killed in between."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.cli.app import main
from core.errors import DataError, ModelError, SpecError, StopRequested
from core.files import read_json
from core.models.hub import UnreachableError
from core.results.efficiency import read_efficiency
from core.results.perplexity import read_perplexities
from core.runs import launch, watch
from core.runs.artifacts import EVENTS, METRICS, SAMPLES, STOP, read_plan, read_spec
from core.runs.command_line import command_line
from core.runs.events import Event, EventReader, metric_series
from core.runs.status import Status, write_status
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec, recover_preset
from core.spec.run import RunSpec
from core.stages.check import check
from core.stages.worker import execute
from tests.conftest import WORDS

TEXTS = ("evaluation.txt", "World Factbook, evaluation part")
TRAIN = RecoverSpec(
    "lora", learning_rate=5e-2, warmup=1, steps=6, batch=4, micro_batch=4, length=16, eval_every=2, held=4,
    precision="no",
)  # fmt: skip


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two texts of words that the tiny tokenizer knows."""
    folder, draw = tmp_path_factory.mktemp("texts"), random.Random(0)
    paths = [folder / "training.txt", folder / "evaluation.txt"]
    for path in paths:
        path.write_text(" ".join(draw.choices(WORDS.split(), k=1500)))
    return paths


@pytest.fixture(scope="module")
def spec(tiny_llama_folder: Path, words: list[Path]) -> RunSpec:
    return RunSpec(
        model=ModelSpec(str(tiny_llama_folder), "cpu"),
        calibration=DataSpec(str(words[0]), samples=4, length=16),
        prune=PruneSpec("l2", 0.3),
        recover=replace(TRAIN, data=str(words[0])),
        evaluate=EvalSpec(str(words[1]), 16, 128, ("the a of",), 4, efficiency=False),
    )


def done(folder: Path, spec: RunSpec) -> Path:
    run_dir = launch.create(folder, spec, mine=True)
    execute(run_dir)
    return run_dir


def metrics(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(run_dir / METRICS)
    del found["seconds"], found["run_memory_gib"], found["run_memory_predicted_gib"]
    return found


def events(run_dir: Path, kind: str) -> list[Event]:
    return [event for event in EventReader(run_dir / EVENTS).read() if event.type == kind]


def followed(run_dir: Path) -> dict[str, list[tuple[float, float]]]:
    return metric_series(EventReader(run_dir / EVENTS).read())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, spec: RunSpec) -> Path:
    """A run that cut and trained, never interrupted."""
    return done(tmp_path_factory.mktemp("runs"), spec)


def test_before_and_after_stand_together(finished: Path) -> None:
    found = metrics(finished)
    assert found["ppl_after"] == found["ppl_recovered"] < found["ppl_pruned"]
    assert found["ppl_before"] > 0 and found["recover_steps"] == 6 and found["recover_best_step"] > 0
    assert found["recover_data"] == "training.txt" and len(found["recover_data_sha256"]) == 64
    assert found["recover_held_ppl_after"] < found["recover_held_ppl_before"]
    (sample,) = read_json(finished / SAMPLES)
    assert list(sample) == ["prompt", "dense", "pruned", "recovered"]
    stages = watch.refresh(finished).stages
    assert stages == [event.stage for event in events(finished, "stage")]
    assert stages[-5:] == ["surgery", "measure", "recover", "evaluate", "export"]
    named = {event.data["name"] for event in events(finished, "metric")}
    assert named == {
        "ppl_before", "ppl_pruned", "ppl_after",
        "recover.loss", "recover.learning_rate", "recover.held_ppl",
        *(f"{name}.{TEXTS[1]}" for name in ("ppl_before", "ppl_pruned", "ppl_after")),
        *(f"recover.ppl.{name}" for name in TEXTS),
    }  # fmt: skip


def test_texts_that_nobody_trains_on_are_followed(finished: Path) -> None:
    """From the untrained model to the last step, of fewer tokens than the result is measured on."""
    curves = followed(finished)
    for name, row in zip(TEXTS, metrics(finished)["perplexities"], strict=True):
        points = dict(curves[f"recover.ppl.{name}"])
        assert list(points) == [0, 2, 4, 6] == list(dict(curves["recover.held_ppl"]))
        assert points[0] == pytest.approx(row["ppl_pruned"], rel=1e-3), "here all tokens are followed"


def test_the_saved_model_is_the_recovered_one(tmp_path: Path, spec: RunSpec, finished: Path) -> None:
    again = replace(spec, goal="evaluate", model=ModelSpec(str(finished), "cpu"))
    found = read_json(done(tmp_path, again) / METRICS)
    assert found["ppl"] == pytest.approx(metrics(finished)["ppl_after"], rel=1e-4)
    assert "Recovered with LoRA" in (finished / "model" / "README.md").read_text()


def test_an_existing_run_is_recovered_to_the_same_model(
    tmp_path: Path, spec: RunSpec, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = done(tmp_path, replace(spec, recover=RecoverSpec()))
    options = ["--learning-rate", "5e-2", "--warmup", "1", "--steps", "6", "--batch", "4", "--held", "4"]
    options += ["--recover-length", "16", "--eval-every", "2", "--recover-data", spec.recover.data]
    options += ["--precision", "no"]
    capsys.readouterr()
    assert main(["recover", cut.name, *options, "--runs-dir", str(tmp_path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    found, expected = metrics(Path(shown["run_dir"])), metrics(finished)
    rows = zip(found.pop("perplexities"), expected.pop("perplexities"), strict=True)
    assert found == pytest.approx(expected) and len(shown["perplexities"]) == 2
    assert all(row == pytest.approx(other) for row, other in rows)
    assert shown["ppl_pruned"] > shown["ppl_recovered"] == shown["ppl_after"]
    assert read_plan(Path(shown["run_dir"])) == read_plan(cut)
    kept = read_perplexities(Path(shown["run_dir"]))
    assert set(kept) == {"dense", "pruned", "recovered"} and kept["dense"] == read_perplexities(cut)["dense"]
    assert read_json(Path(shown["run_dir"]) / SAMPLES) != []
    asked = read_spec(Path(shown["run_dir"]))
    assert command_line(asked).startswith(f"python -m core recover {cut}")


def test_a_recovered_run_keeps_the_times_of_the_run_before(tmp_path: Path, spec: RunSpec) -> None:
    timed = replace(spec, recover=RecoverSpec(), evaluate=replace(spec.evaluate, efficiency=True))
    cut = done(tmp_path, timed)
    again = replace(timed, goal="recover", model=ModelSpec(str(cut), "cpu"), recover=spec.recover)
    run_dir = done(tmp_path, again)
    before, after = read_efficiency(cut), read_efficiency(run_dir)
    assert after == {"dense": before["dense"], "recovered": before["pruned"]}
    found = read_json(run_dir / METRICS)
    assert found["latency_ms_after"] == before["pruned"].latency_ms
    assert found["latency_spread_ms_before"] == before["dense"].latency_spread_ms


def test_the_command_that_is_shown_asks_for_the_same(spec: RunSpec) -> None:
    words = command_line(spec)
    assert "--recover lora" in words and "--steps 6" in words and "--recover-length 16" in words
    assert "--recover" not in command_line(replace(spec, recover=RecoverSpec()))


def test_presets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paper, demo = recover_preset("paper"), recover_preset("demo")
    assert (paper.rank, paper.learning_rate, paper.warmup, paper.epochs) == (8, 1e-4, 100, 2)
    assert demo.method == "lora" and demo.steps
    assert main(["prune", "demo", "--recover", "lora", "--preset", "dmeo"]) == 2
    assert "Did you mean 'demo'" in capsys.readouterr().err
    assert main(["prune", "demo", "--preset", "demo"]) == 2
    assert "add --recover lora" in capsys.readouterr().err


def test_what_is_wrong_is_found_before_anything_starts(tmp_path: Path, spec: RunSpec) -> None:
    wrong: list[tuple[RunSpec, type[Exception], str]] = [
        (replace(spec, goal="recover"), ModelError, "not pruned"),
        (replace(spec, recover=replace(TRAIN, data=str(tmp_path / "no.txt"))), DataError, "no.txt"),
        (replace(spec, recover=replace(TRAIN, length=4096)), SpecError, "reads 256 tokens"),
    ]
    for request, error, said in wrong:
        with pytest.raises(error, match=said):
            check(request)
    for field, value in (("targets", "heads"), ("rank", 0), ("dropout", 1.0), ("micro_batch", 3)):
        with pytest.raises(SpecError, match=field):
            replace(TRAIN, **{field: value})


def test_too_little_to_train_on_is_said_before_anything_is_measured(tmp_path: Path, spec: RunSpec) -> None:
    (tmp_path / "few.txt").write_text("the a of in it is that " * 20)
    few = replace(spec, recover=replace(spec.recover, data=str(tmp_path / "few.txt")))
    with pytest.raises(DataError, match=r"few\.txt gives 8 sequences of 16 tokens.*at least 10 are needed"):
        check(few)


def test_the_bundled_text_stands_in_where_the_hub_cannot_be_reached(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said in the run and in its record."""

    def unreachable(*_: Any, **__: Any) -> Any:
        raise UnreachableError("the hub cannot be reached")
        yield

    monkeypatch.setattr("core.models.data_sets.hub_rows", unreachable)
    run_dir = done(tmp_path, replace(spec, recover=replace(spec.recover, data="alpaca,bundled", steps=1)))
    said = "is read instead of alpaca: Alpaca (cleaned) cannot be read: the hub cannot be reached"
    assert any(said in event.data["text"] for event in events(run_dir, "message"))
    assert metrics(run_dir)["recover_data"].startswith("State of the Union")
    assert said in metrics(run_dir)["recover_data_instead"]


def test_training_on_the_evaluation_text_is_said(tmp_path: Path, spec: RunSpec) -> None:
    same = replace(spec, recover=replace(spec.recover, data=spec.evaluate.text, steps=1))
    told = [event.data["text"] for event in events(done(tmp_path, same), "message")]
    assert any(text.startswith("training and evaluation") for text in told)


def test_stopped_while_training_and_resumed_gives_the_same(
    tmp_path: Path, spec: RunSpec, finished: Path
) -> None:
    run_dir = launch.create(tmp_path, spec, mine=True)

    def stop_there(event: Event) -> None:
        if event.type == "metric" and (event.data["name"], event.data["step"]) == ("recover.loss", 2):
            (run_dir / STOP).touch()

    with pytest.raises(StopRequested):
        execute(run_dir, stop_there)
    assert watch.refresh(run_dir).state == "stopped"
    told = [event.data["text"] for event in events(run_dir, "message")]
    assert "Stopped after step 2 of 6, which is saved" in told
    write_status(run_dir, Status(created=1.0))
    execute(run_dir)
    told = [event.data["text"] for event in events(run_dir, "message")]
    assert "Training goes on after step 2 of 6" in told
    assert metrics(run_dir) == metrics(finished)
    steps = [e.data["step"] for e in events(run_dir, "metric") if e.data["name"] == "recover.loss"]
    assert steps == [1, 2, 3, 4, 5, 6]
    for name in TEXTS:
        own, whole = (followed(each)[f"recover.ppl.{name}"] for each in (run_dir, finished))
        assert own == whole and len(own) == 4


def test_a_checkpoint_of_an_old_release_is_said_and_the_training_starts_again(
    tmp_path: Path, spec: RunSpec, finished: Path
) -> None:
    run_dir = launch.create(tmp_path, spec, mine=True)
    old = run_dir / "checkpoint" / "recover"
    old.mkdir(parents=True)
    for name in ("facts.json", "trainer_state.json", "tensors.safetensors"):
        (old / name).write_text("{}")
    execute(run_dir)
    told = [event.data["text"] for event in events(run_dir, "message")]
    assert any(text.startswith("the checkpoint is of release 0.1") for text in told)
    assert metrics(run_dir) == metrics(finished) and not old.exists()


@pytest.mark.slow
def test_a_worker_killed_while_training_is_resumed_to_the_same(tmp_path: Path, spec: RunSpec) -> None:
    long = replace(spec, recover=replace(spec.recover, steps=80, eval_every=10))
    run_dir = launch.start(tmp_path / "runs", long)
    reached(run_dir, 25)
    pid = watch.refresh(run_dir).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(run_dir, "crashed")
    launch.resume(run_dir)
    until(run_dir, "finished")
    found, expected = metrics(run_dir), metrics(done(tmp_path, long))
    rows = zip(found.pop("perplexities"), expected.pop("perplexities"), strict=True)
    assert found == pytest.approx(expected) and all(row == pytest.approx(other) for row, other in rows)
    while any(child.poll() is None for child in launch._children):
        time.sleep(0.02)


def reached(run_dir: Path, step: int) -> None:
    """Wait until this many steps were trained."""
    while not any(e.data["step"] >= step for e in events(run_dir, "metric") if "recover" in e.data["name"]):
        assert watch.refresh(run_dir).state not in ("failed", "damaged"), watch.log_tail(run_dir)
        time.sleep(0.005)


def until(run_dir: Path, *states: str) -> None:
    while watch.refresh(run_dir).state not in states:
        assert watch.refresh(run_dir).state not in ("failed", "damaged"), watch.log_tail(run_dir)
        time.sleep(0.02)
