"""What a run tells is mirrored; a tracker that cannot be reached costs it a warning and nothing else."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from core.runs import launch, track
from core.runs.artifacts import LOG
from core.runs.command_line import command_line
from core.runs.recorder import Recorder
from core.runs.track import mirrored
from core.runs.tracker import _within
from core.spec.run import RunSpec
from tests.runs.waiting import until


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


def at_work(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_all_that_take_nothing_are_waited_for_together_and_go_with_what_they_started(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); "
    waits += "open(f'{sys.argv[2]}/{sys.argv[1]}.pid', 'w').write(f'{p.pid}.'); p.wait()"
    monkeypatch.setattr(track, "_PATIENCE_S", 0.5)
    monkeypatch.setattr(track, "_TRACKER", (sys.executable, "-c", waits))
    names, run_dir = ("trackio", "tensorboard", "wandb", "mlflow"), recorder.run_dir
    with mirrored(RunSpec(track=names), run_dir, recorder):
        files = [run_dir / f"{name}.pid" for name in names]
        until(lambda: all(file.exists() and file.read_text().endswith(".") for file in files))
        began = time.monotonic()
    assert time.monotonic() - began < 1.5, "each by itself would have taken 2 s"
    until(lambda: not any(at_work(int(file.read_text()[:-1])) for file in files))


def test_one_that_cannot_be_started_costs_a_warning(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track, "_TRACKER", ("/no/such/program",))
    with mirrored(RunSpec(track=("wandb", "mlflow")), recorder.run_dir, recorder):
        recorder.metric("train.loss", 0, 1.0)
    log = (recorder.run_dir / LOG).read_text()
    assert log.count("not mirrored") == 2 and "/no/such/program" in log


def test_one_that_does_not_answer_at_first_ends_instead_of_trying_for_minutes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with _within(30):
        signal.raise_signal(signal.SIGALRM)  # as after 30 s
    assert ended == [1] and capsys.readouterr().out == "no answer within 30 s\n"
    assert signal.alarm(0) == 0, "none goes off later"


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
