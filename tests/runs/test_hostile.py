"""Processes that are none of ours, workers that are suspended, folders that are gone, files that are none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from core.errors import LaunchError, UnknownNameError
from core.files import regular
from core.runs import launch, watch
from core.runs.artifacts import LOG
from core.runs.processes import host
from core.runs.status import read_status, write_status
from tests.runs.waiting import executed, named, state, until


def test_a_process_that_is_no_worker_on_this_run_is_left_alone(runs: Path) -> None:
    run_dir = launch.create(runs, named("quick"))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        started, now = psutil.Process(other.pid).create_time(), time.time()
        said = replace(read_status(run_dir), state="running", pid=other.pid, pid_started=started)
        write_status(run_dir, replace(said, heartbeat=now, host=host()))
        with pytest.raises(LaunchError, match="no worker of the queue on this run"):
            launch.kill(run_dir)
        assert other.poll() is None
        other.kill()


def test_a_worker_that_is_suspended_with_its_parent_is_ended_and_the_queue_goes_on(runs: Path) -> None:
    first, second = launch.create(runs, named("wait")), launch.create(runs, named("quick"))
    launch.start_next(runs)
    until(lambda: executed(first) == 1)
    worker = psutil.Process(watch.refresh(first).pid)
    parent = worker.parent()
    assert parent is not None
    for process in (parent, worker):
        os.kill(process.pid, signal.SIGSTOP)
    assert launch.kill(first).state == "stopped"
    until(lambda: state(second) == "finished")
    until(lambda: not psutil.pid_exists(parent.pid) and not psutil.pid_exists(worker.pid))


def test_finished_workers_leave_no_zombie(runs: Path) -> None:
    run_dir = launch.start(runs, named("quick"))
    (child,) = launch._children
    until(lambda: read_status(run_dir).state == "finished")
    until(lambda: not psutil.pid_exists(child.pid))  # nobody starts or looks at anything meanwhile


def test_a_worker_whose_folder_is_gone_ends_and_makes_no_new_one(runs: Path) -> None:
    run_dir, behind = launch.create(runs, named("wait")), launch.create(runs, named("quick"))
    launch.start_next(runs)
    until(lambda: executed(run_dir) == 1)
    pid = watch.refresh(run_dir).pid
    shutil.rmtree(run_dir, ignore_errors=True)
    until(lambda: not psutil.pid_exists(pid))  # type: ignore[arg-type]
    until(lambda: state(behind) == "finished")
    assert not run_dir.exists()


@pytest.mark.parametrize("name", ["..", ".", "", "x" * 300, "../runs", "a/b", "\x00"])
def test_an_id_is_one_that_the_list_has(runs: Path, name: str) -> None:
    launch.create(runs, named("quick"))
    with pytest.raises(UnknownNameError):
        watch.find(runs, name)


def test_links_and_pipes_are_not_followed(runs: Path) -> None:
    (linked, piped), secret = (launch.create(runs, named("quick")) for _ in range(2)), runs / "secret"
    secret.write_text("secret")
    (linked / LOG).symlink_to(secret)
    os.mkfifo(piped / LOG)
    assert watch.log_tail(linked) == watch.log_tail(piped) == ""
    healthy = launch.create(runs, named("quick"))
    assert launch.start_next(runs) == healthy
    assert (state(linked), state(piped)) == ("failed", "failed") and secret.read_text() == "secret"
    (runs / "link").symlink_to(healthy)
    assert "link" not in [path.name for path in watch.list_runs(runs)]
    with pytest.raises(OSError, match="symbolic link"), open(linked / LOG, opener=regular):
        pass


def test_a_log_of_80_mb_is_read_from_its_end(runs: Path) -> None:
    run_dir = launch.create(runs, named("quick"))
    with (run_dir / LOG).open("wb") as log:
        log.truncate(80 * 2**20)
        log.seek(0, os.SEEK_END)
        log.write(b"\nthe end\n")
    began = time.perf_counter()
    assert watch.log_tail(run_dir, 1) == "the end"
    assert time.perf_counter() - began < 1


def test_times_to_come_hold_up_no_queue(runs: Path) -> None:
    strange = launch.create(runs, named("quick"))
    later = time.time() + 10**6
    said = replace(read_status(strange), state="running", host="elsewhere", heartbeat=later, created=later)
    write_status(strange, said)
    assert launch.start(runs, named("quick")) and state(strange) == "crashed"
