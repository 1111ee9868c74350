"""Runs are stopped at their next step, at once or by force, and resumed in their directory."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from core.errors import InputError, LaunchError
from core.runs import launch, watch
from core.runs.artifacts import STOP
from core.runs.status import read_status, write_status
from core.spec.run import RunSpec
from tests.runs.waiting import executed, named, state, until


def test_a_running_run_stops_at_its_next_step(runs: Path) -> None:
    run_dir = launch.start(runs, named("wait"))
    until(lambda: state(run_dir) == "running")
    assert launch.stop(run_dir).state == "stopping"
    until(lambda: state(run_dir) == "stopped")
    assert not (run_dir / STOP).exists()
    assert launch.stop(run_dir).state == "stopped"


def test_a_queued_run_stops_at_once(tmp_path: Path) -> None:
    run_dir = launch.create(tmp_path, RunSpec())
    assert launch.stop(run_dir).state == "stopped" == state(run_dir)
    assert launch.start_next(tmp_path) is None


def test_sigterm_stops_a_worker_as_asked(runs: Path) -> None:
    run_dir = launch.start(runs, named("wait"))
    until(lambda: state(run_dir) == "running")
    until(lambda: executed(run_dir) == 1)
    os.kill(watch.refresh(run_dir).pid, signal.SIGTERM)  # type: ignore[arg-type]
    until(lambda: state(run_dir) == "stopped")


def test_a_worker_that_does_not_listen_is_ended(runs: Path) -> None:
    run_dir = launch.start(runs, named("wait"))
    until(lambda: executed(run_dir) == 1)
    os.kill(watch.refresh(run_dir).pid, signal.SIGSTOP)  # type: ignore[arg-type]
    launch.stop(run_dir)
    pid = watch.refresh(run_dir).pid
    status = launch.kill(run_dir)
    assert status.state == "stopped" and not psutil.pid_exists(pid)  # type: ignore[arg-type]
    until(lambda: state(run_dir) == "stopped")


def test_a_stopped_run_is_resumed_in_its_directory(runs: Path) -> None:
    run_dir = launch.start(runs, named("wait"))
    until(lambda: executed(run_dir) == 1)  # it says that it runs before it notes that it does
    launch.stop(run_dir)
    until(lambda: state(run_dir) == "stopped")
    write_status(run_dir, replace(read_status(run_dir), started=1000.0, ended=1060.0))
    (run_dir / "go").touch()
    assert launch.resume(run_dir).state in ("queued", "starting", "running", "finished")
    until(lambda: launch.start_next(runs) is not None or state(run_dir) == "finished")
    until(lambda: state(run_dir) == "finished")
    assert executed(run_dir) == 2 and len(watch.list_runs(runs)) == 1
    status = read_status(run_dir)
    assert status.before_s == 60.0 and status.started and status.ended
    assert status.worked_s(0.0) == 60.0 + status.ended - status.started  # the pause took no time
    with pytest.raises(InputError, match="is finished"):
        launch.resume(run_dir)


def test_a_lock_that_is_never_let_go_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOCK_S", 0.05)
    with (
        watch.locked(tmp_path),
        pytest.raises(LaunchError, match="held by another process"),
        watch.locked(tmp_path),
    ):
        pass
    with watch.locked(tmp_path):
        pass
