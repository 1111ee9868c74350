"""Stopped, damaged, killed or out of room: what is finished is kept, and the result is the same."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import StopRequested, StorageError
from core.files import read_json
from core.models.again import cut_loaded
from core.results.scores import SCORES
from core.results.widths import WIDTHS
from core.runs import launch, watch
from core.runs.artifacts import CHECKPOINT, GROUPS, METRICS, MODEL, PLAN, RECONSTRUCTED, read_plan
from core.runs.events import Event
from core.spec.choices import BIASED, RECHOOSING
from core.spec.run import RunSpec
from core.stages import reconstruct as refitting
from core.stages import result
from core.stages.worker import execute
from tests.stages.steps import VERBS, again, done, outcome, staged


@pytest.mark.parametrize("how", ["bias", "least_squares", "pre_pruning", "pre_pruning_refit"])
def test_a_run_that_refits_meets_its_target_and_resumes_as_if_never_stopped(
    tmp_path: Path, spec: RunSpec, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = "second_moment" if how in RECHOOSING else spec.prune.method  # units can be chosen anew
    refit = replace(spec.prune, method=method, reconstruct=how, scope="standardised", recovery_samples=8)
    asked = replace(spec, prune=refit)
    whole = done(tmp_path / "whole", asked)
    assert "reconstruct" in staged(whole)
    assert not (whole / CHECKPOINT / RECONSTRUCTED).exists(), "only a resumed run needs it"
    plan, metrics = read_plan(whole), read_json(whole / METRICS)
    gone = metrics["params_before"] - metrics["params_after"]
    assert bool(plan.biases) == (how in BIASED)
    assert abs(gone - 0.3 * plan.params_in_scope) <= 96
    cut = launch.create(tmp_path / "cut", asked, mine=True)
    monkeypatch.setattr(result, "cut_loaded", lambda *_, **__: (_ for _ in ()).throw(StorageError("full")))
    with pytest.raises(StorageError):
        execute(cut)
    monkeypatch.setattr(result, "cut_loaded", cut_loaded)
    monkeypatch.setattr(refitting, "refit", lambda *_, **__: pytest.fail("what was refitted is kept"))
    again(cut)
    assert outcome(cut) == outcome(whole)


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
    assert watch.refresh(run_dir).state == "stopped"
    again(run_dir)
    assert outcome(run_dir) == uninterrupted


@pytest.mark.parametrize("name", [GROUPS, SCORES, PLAN, f"{CHECKPOINT}/baseline.json"])
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
    before = {name: (run_dir / name).stat().st_mtime_ns for name in (GROUPS, SCORES, PLAN)}

    def repeated(*_: object, **__: object) -> None:
        raise AssertionError("this stage was finished")

    for name in ("groups_of", "capture_statistics", "scoring.score", "allocate"):
        monkeypatch.setattr(f"core.stages.steps.{name}", repeated)
    again(run_dir)
    assert {name: (run_dir / name).stat().st_mtime_ns for name in before} == before


def test_the_plan_is_written_before_anything_is_cut(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the saw broke")

    monkeypatch.setattr(result, "cut_loaded", broken)
    run_dir = launch.create(tmp_path, spec, mine=True)
    with pytest.raises(RuntimeError, match="the saw broke"):
        execute(run_dir)
    assert read_plan(run_dir).sparsity > 0 and (run_dir / WIDTHS).exists()


def test_a_full_disk_while_saving_loses_nothing(
    tmp_path: Path, spec: RunSpec, uninterrupted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run_dir = launch.create(tmp_path, spec, mine=True)
    with monkeypatch.context() as patched, pytest.raises(StorageError, match="free some space"):
        patched.setattr(result, "save", full)
        execute(run_dir)
    status = watch.refresh(run_dir)
    assert status.state == "failed" and status.stage == "export"
    assert read_plan(run_dir) == uninterrupted[0]
    again(run_dir)
    assert outcome(run_dir) == uninterrupted and (run_dir / MODEL).is_dir()


def test_a_killed_worker_process_is_resumed_to_the_same_result(
    tmp_path: Path, spec: RunSpec, uninterrupted: Any
) -> None:
    run_dir = launch.start(tmp_path / "runs", spec)
    reached(run_dir, "capture")
    pid = watch.refresh(run_dir).pid
    if pid is not None and watch.refresh(run_dir).state == "running":
        os.kill(pid, signal.SIGKILL)
        reached(run_dir, "crashed")
        assert watch.refresh(run_dir).error["log"]  # type: ignore[index]
        launch.resume(run_dir)
    reached(run_dir, "finished")
    assert outcome(run_dir) == uninterrupted
    until_gone(tmp_path / "runs")


def reached(run_dir: Path, place: str) -> None:
    end = time.monotonic() + 120
    while True:
        status = watch.refresh(run_dir)
        if place in (status.state, status.stage) or (place in VERBS and status.state == "finished"):
            return
        assert status.state not in ("failed", "damaged") and time.monotonic() < end, json.dumps(vars(status))
        time.sleep(0.01)


def until_gone(runs_dir: Path) -> None:
    end = time.monotonic() + 60
    while any(child.poll() is None for child in launch._children):
        assert time.monotonic() < end, "a worker stays"
        time.sleep(0.02)
