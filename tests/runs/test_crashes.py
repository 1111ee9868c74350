"""A worker that is gone or silent is noticed by whoever looks, and said in words."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from core.errors import InputError
from core.runs import launch, processes, watch
from core.runs.status import Status, read_status, write_status
from core.spec.run import RunSpec
from tests.runs.waiting import dead_pid, named, state, until


def test_a_killed_worker_shows_as_crashed_and_the_queue_goes_on(runs: Path) -> None:
    first, second = launch.create(runs, named("wait")), launch.create(runs, named("quick"))
    launch.start_next(runs)
    until(lambda: state(first) == "running")
    until(lambda: "stage evaluate" in watch.log_tail(first))
    os.kill(watch.refresh(first).pid, signal.SIGKILL)  # type: ignore[arg-type]
    until(lambda: read_status(first).state == "crashed")  # read only: the waiting parent notices
    error = watch.refresh(first).error
    assert error and "SIGKILL" in error["message"] and "out of memory" in error["message"]
    assert "stage evaluate" in error["log"]
    until(lambda: read_status(second).state == "finished")


def test_a_worker_killed_with_its_parent_is_noticed_by_whoever_looks(runs: Path) -> None:
    run_dir = launch.start(runs, named("wait"))
    until(lambda: state(run_dir) == "running")
    worker = psutil.Process(watch.refresh(run_dir).pid)
    worker.parent().kill()  # type: ignore[union-attr]
    worker.kill()
    until(lambda: state(run_dir) == "crashed")
    error = watch.refresh(run_dir).error
    assert error and "possibly out of memory" in error["message"]
    assert read_status(run_dir).state == "crashed"


def running(folder: Path, **changes: object) -> Path:
    """A run that says it is at work in this very process."""
    run_dir = launch.create(folder, RunSpec(), mine=True)
    status = replace(read_status(run_dir), state="running", heartbeat=time.time())
    write_status(run_dir, replace(status, **changes))  # type: ignore[arg-type]
    return run_dir


def test_how_a_worker_ended_says_nothing_of_the_one_after_it(tmp_path: Path) -> None:
    run_dir = running(tmp_path / "runs")
    own = os.getpid()
    assert watch.refresh(run_dir, -signal.SIGKILL, of=(own + 1,)).state == "running"  # resumed meanwhile
    ended = watch.refresh(run_dir, -signal.SIGKILL, of=(own, own + 1))
    assert ended.state == "crashed" and "was killed (SIGKILL)" in ended.message


def test_a_process_with_the_same_number_is_not_the_worker(tmp_path: Path) -> None:
    assert state(running(tmp_path)) == "running"
    assert state(running(tmp_path, pid_started=time.time() - 10**6)) == "crashed"


def test_a_silent_worker_is_crashed_but_keeps_its_place(tmp_path: Path) -> None:
    run_dir = running(tmp_path, heartbeat=time.time() - 61, started=time.time() - 100, created=0.0)
    behind = launch.create(tmp_path, RunSpec())
    status = watch.refresh(run_dir)
    assert status.state == "crashed" and "stuck" in status.message
    assert launch.start_next(tmp_path) is None and state(behind) == "queued"
    with pytest.raises(InputError, match="only an ended run"):
        launch.resume(run_dir)


def test_a_worker_on_another_machine_counts_by_its_heartbeat(tmp_path: Path) -> None:
    assert state(running(tmp_path, host="elsewhere", pid=dead_pid())) == "running"
    silent = running(tmp_path, host="elsewhere", heartbeat=1.0, started=1.0, created=1.0)
    assert state(silent) == "crashed"


def test_a_run_whose_launcher_died_is_not_starting_for_ever(tmp_path: Path) -> None:
    assert state(running(tmp_path, state="starting", pid=None)) == "starting"
    old = dict(state="starting", pid=None, heartbeat=0.0, started=1.0, created=1.0)
    assert state(running(tmp_path, **old)) == "crashed"


def test_a_worker_that_ends_while_we_look_is_not_crashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = running(tmp_path)

    def ends_now(status: Status) -> bool:
        write_status(run_dir, replace(status, state="finished"))
        return True

    monkeypatch.setattr(watch, "lost", ends_now)
    assert watch.refresh(run_dir).state == "finished"


@pytest.mark.parametrize(
    ("code", "said"),
    [(None, "out of memory"), (-9, "SIGKILL"), (-11, "SIGSEGV"), (1, "code 1")],
)
def test_how_a_worker_ended_is_said(code: int | None, said: str) -> None:
    assert said in processes.describe_exit(code)
