"""Several processes train as one: the same plan, and an end for all of them when one ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from core.errors import LaunchError, SpecError, StopRequested
from core.recover.team import devices
from core.runs import launch
from core.runs.artifacts import LOG, STOP, read_plan
from core.runs.events import Event, EventReader
from core.runs.processes import alive
from core.runs.status import Status, read_status, write_status
from core.spec.run import RunSpec
from core.stages import check, leader
from core.stages.worker import execute
from tests.runs.waiting import until
from tests.stages.test_nuteprune import curves, options, started
from tests.stages.test_nuteprune import spec as spec

#: A follower that does something at one of its steps, counted from 1.
MISBEHAVING = """
import math, os, signal, sys
from pathlib import Path
from core.nuteprune import training
from core.stages import follower
original, calls = training.distillation, []
def distillation(*args):
    calls.append(1)
    return original(*args) * ({what} if len(calls) == {step} else 1.0)
training.distillation = distillation
sys.exit(follower.main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def together(spec: RunSpec, **changes: Any) -> RunSpec:
    return options(spec, **{"batch": 4, "processes": 2, **changes})


def misbehave(monkeypatch: pytest.MonkeyPatch, what: str, step: int) -> None:
    code = MISBEHAVING.format(what=what, step=step)
    monkeypatch.setattr(leader, "_FOLLOWER", (sys.executable, "-c", code))


def step_of(event: Event, name: str) -> int:
    """The step of a point of this curve; 0 for anything else."""
    of_curve = event.type == "metric" and event.data["name"] == f"train.{name}"
    return int(event.data["step"]) if of_curve else 0


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, spec: RunSpec) -> Path:
    """A run of one process that splits its batches as two would."""
    run_dir = started(tmp_path_factory.mktemp("alone"), together(spec, processes=1, accumulate=2))
    execute(run_dir)
    return run_dir


@pytest.fixture
def others() -> set[psutil.Process]:
    """Processes that tests before this one have left, such as the one that tracks shared memory."""
    return set(psutil.Process().children())


def test_all_skip_a_step_that_is_no_number_for_one_and_stop_together(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch, others: set[psutil.Process]
) -> None:
    run_dir = started(tmp_path, together(spec))
    misbehave(monkeypatch, "math.nan", step=2)

    def stop(event: Event) -> None:
        if step_of(event, "target") == 4:
            (run_dir / STOP).write_text("")

    with pytest.raises(StopRequested):
        execute(run_dir, stop)
    found = curves(run_dir)
    assert sorted(found["train.kl"]) == [1, 3, 4]
    assert list(found["train.skipped"].values()) == [0.0, 1.0, 1.0, 1.0]
    assert set(psutil.Process().children()) <= others


def test_one_that_dies_ends_the_run_in_words_and_two_learn_what_one_learns(
    tmp_path: Path,
    spec: RunSpec,
    alone: Path,
    monkeypatch: pytest.MonkeyPatch,
    others: set[psutil.Process],
) -> None:
    run_dir = started(tmp_path, together(spec))
    misbehave(monkeypatch, "os.kill(os.getpid(), signal.SIGKILL)", step=8)
    with pytest.raises(LaunchError, match=r"Process 2 of 2, which trains on cpu, was killed .SIGKILL."):
        execute(run_dir)
    assert read_status(run_dir).state == "failed"
    assert sorted(curves(run_dir)["train.kl"]) == list(range(1, 8))
    monkeypatch.undo()
    before = {**os.environ}
    write_status(run_dir, Status(state="queued"))
    execute(run_dir)  # from its checkpoint on
    said = [event.data.get("text", "") for event in EventReader(run_dir / "events.jsonl").read()]
    assert "Training goes on after step 6 of 12" in said
    assert "2 processes train together" in (run_dir / LOG).read_text()
    assert read_plan(run_dir) == read_plan(alone)
    ours, theirs = curves(run_dir), curves(alone)
    for name in ("kl", "expected", "lambda_1", "ppl_cut"):
        assert ours[f"train.{name}"] == pytest.approx(theirs[f"train.{name}"], rel=1e-3), name
    assert ours["train.teacher"] == theirs["train.teacher"] and max(ours["train.teacher"].values()) > 0
    assert set(psutil.Process().children()) <= others and {**os.environ} == before
    assert not torch.distributed.is_initialized()


def test_one_that_cannot_start_says_why(tmp_path: Path, spec: RunSpec, others: set[psutil.Process]) -> None:
    model = tmp_path / "model"
    shutil.copytree(spec.model.source, model)
    run_dir = started(
        tmp_path / "runs", replace(together(spec), model=replace(spec.model, source=str(model)))
    )

    def take_away(event: Event) -> None:
        if event.type == "stage" and event.stage == "train":
            (model / "config.json").unlink()

    with pytest.raises(LaunchError, match=r"Process 2 of 2, which trains on cpu, failed: .*config\.json"):
        execute(run_dir, take_away)
    assert set(psutil.Process().children()) <= others


def test_all_end_when_the_first_is_killed(tmp_path: Path, spec: RunSpec) -> None:
    run_dir = started(tmp_path, together(spec, steps=1000))
    code = """
import os, psutil, signal, sys
from pathlib import Path
from core.stages.worker import execute
def kill(event):
    if event.type == "metric" and event.data["name"] == "train.kl" and event.data["step"] == 3:
        print(*(f"{one.pid} {one.create_time()}" for one in psutil.Process().children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
execute(Path(sys.argv[1]), kill)
"""
    write_status(run_dir, Status(state="queued"))
    ended = subprocess.run(
        [sys.executable, "-c", code, str(run_dir)], cwd=launch.ROOT, stdout=subprocess.PIPE, text=True
    )
    assert ended.returncode == -signal.SIGKILL
    (pid, since) = ended.stdout.split()
    until(lambda: not alive(int(pid), float(since)), seconds=20)


def test_more_processes_than_devices_are_refused_before_anything_starts(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [str(one) for one in devices(torch.device("cuda:1"), 3)] == ["cuda:1", "cuda:2", "cuda:3"]
    assert [str(one) for one in devices(torch.device("cuda"), 2)] == ["cuda:0", "cuda:1"]
    with pytest.raises(SpecError, match="at most 4 here, the number of cuda devices, got 5"):
        devices(torch.device("cuda"), 5)
    monkeypatch.setattr(check, "pick_device", lambda name: torch.device("cuda:3"))
    says = "at most 1 here, the number of cuda devices from number 3 on, got 2"
    with pytest.raises(SpecError, match=says):
        check.check(together(spec))
    run_dir = started(tmp_path, together(spec))
    with pytest.raises(SpecError, match=says):
        execute(run_dir)
    assert read_status(run_dir).stage == ""
