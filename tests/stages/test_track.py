"""What a run tells is mirrored; a tracker that cannot be reached costs it a warning and nothing else."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.runs import launch, track
from core.runs.artifacts import LOG
from core.runs.command_line import command_line
from core.runs.recorder import Recorder
from core.runs.track import mirrored
from core.spec.run import RunSpec


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """A run at work."""
    with Recorder(launch.create(tmp_path, RunSpec(), mine=True)) as recorder:
        yield recorder


def test_curves_arrive_at_trackio_and_tensorboard_and_a_missing_one_is_told(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setattr(track, "_PATIENCE_S", 120.0)  # on a busy machine they take long to start
    missing = next(name for name in ("wandb", "mlflow") if importlib.util.find_spec(name) is None)
    spec, run_dir = RunSpec(track=("trackio", "tensorboard", missing)), recorder.run_dir
    with mirrored(spec, run_dir, recorder):
        for step in range(3):
            recorder.metric("train.loss", step, 2.0 - step)
        recorder.metric("train.loss", 3, float("nan"))
        (run_dir / "metrics.json").write_text(json.dumps({"ppl_after": 7.5, "ppl_text": "words"}))
    board = EventAccumulator(str(run_dir / "tensorboard" / run_dir.name)).Reload()
    assert [(point.step, point.value) for point in board.Scalars("train/loss")] == [(0, 2), (1, 1), (2, 0)]
    assert board.Scalars("result/ppl_after")[0].value == 7.5
    with sqlite3.connect(tmp_path / "trackio" / "pruneviz.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
    kept = [(name, step, json.loads(metrics)) for name, step, metrics in rows if b"train/loss" in metrics]
    assert kept == [(run_dir.name, step, {"train/loss": 2.0 - step}) for step in range(3)]
    log = (run_dir / LOG).read_text()
    assert f"Warning: metrics are not mirrored to {missing}: " in log and f"pip install {missing}" in log
    assert log.count("not mirrored") == 1


def test_one_that_takes_nothing_is_given_up(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(track, "_TRACKER", (sys.executable, "-c", "import time; time.sleep(60)"))
    with mirrored(RunSpec(track=("mlflow",)), recorder.run_dir, recorder):
        recorder.metric("train.loss", 0, 1.0)
    assert "mlflow: it does not take what is sent; given up" in (recorder.run_dir / LOG).read_text()


def test_a_run_that_fails_ends_its_trackers_and_fails_as_before(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track, "_TRACKER", (sys.executable, "-c", "import sys; sys.exit('no network')"))
    with (
        pytest.raises(ValueError, match="the run"),
        mirrored(RunSpec(track=("wandb",)), recorder.run_dir, recorder),
    ):
        raise ValueError("the run")
    assert "not mirrored to wandb: no network" in (recorder.run_dir / LOG).read_text()


def test_a_stop_by_the_terminal_does_not_reach_a_tracker(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C goes to the whole group of the run's process."""
    told = "import os, sys; sys.exit('another group' if os.getpgid(0) == os.getpid() else 'the same')"
    monkeypatch.setattr(track, "_TRACKER", (sys.executable, "-c", told))
    with mirrored(RunSpec(track=("wandb",)), recorder.run_dir, recorder):
        pass
    assert "another group" in (recorder.run_dir / LOG).read_text()


def test_trackers_are_part_of_the_command() -> None:
    assert "--track trackio,tensorboard" in command_line(RunSpec(track=("trackio", "tensorboard")))
