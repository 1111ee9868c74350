"""Workers are started once, one after the other, detached; a damaged run blocks nobody."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from core.errors import InputError
from core.runs import launch, watch
from core.runs.artifacts import LOG, SPEC
from core.runs.status import STATUS, read_status
from tests.runs.waiting import FAKE, dead_pid, environment, executed, named, state, until


def test_a_worker_runs_to_its_end_and_starts_the_next(runs: Path) -> None:
    first, second, third = (launch.create(runs, named(name)) for name in ("wait", "fail", "quick"))
    assert launch.start_next(runs) == first
    assert launch.start_next(runs) is None
    until(lambda: state(first) == "running")
    assert (state(second), state(third)) == ("queued", "queued")
    (first / "go").touch()
    until(lambda: read_status(third).state == "finished")  # read only: nobody else moves the queue on
    assert (state(first), state(second)) == ("finished", "failed")
    assert [executed(path) for path in (first, second, third)] == [1, 1, 1]
    error = watch.refresh(second).error
    assert error and error["message"] == "The text is empty; give another one." and error["fix"]
    assert "DataError" in (second / LOG).read_text()


def test_a_bug_is_called_one_and_leaves_its_traceback(runs: Path) -> None:
    run_dir = launch.start(runs, named("bug"))
    until(lambda: state(run_dir) == "failed")
    error = watch.refresh(run_dir).error
    assert error and "This is a bug" in error["message"] and "nobody expected this" in error["message"]
    until(lambda: "ZeroDivisionError" in (run_dir / LOG).read_text())


def test_a_worker_is_detached_and_known_by_pid_and_start(runs: Path) -> None:
    run_dir = launch.start(runs, named("wait"))
    until(lambda: state(run_dir) == "running")
    status = watch.refresh(run_dir)
    assert status.pid is not None and os.getsid(status.pid) != os.getsid(0)
    assert watch.worker_alive(status)
    assert not watch.worker_alive(replace(status, pid_started=status.pid_started - 60))  # type: ignore[operator]
    assert not watch.worker_alive(replace(status, pid=dead_pid()))


def race(folder: str, barrier: object, queue: object) -> None:
    launch.WORKER = (sys.executable, str(FAKE))
    barrier.wait()  # type: ignore[attr-defined]
    started = launch.start_next(Path(folder))
    queue.put(None if started is None else started.name)  # type: ignore[attr-defined]


def test_two_launchers_start_a_run_once(runs: Path) -> None:
    waiting = launch.create(runs, named("wait"))
    behind = launch.create(runs, named("quick"))
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(4), context.Queue()
    racers = [context.Process(target=race, args=(str(runs), barrier, queue)) for _ in range(4)]
    for racer in racers:
        racer.start()
    names = [queue.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join()
    queue.close()
    assert sorted(name for name in names if name) == [waiting.name]
    until(lambda: executed(waiting) > 0)  # it says that it runs before it notes that it does
    assert (state(waiting), executed(waiting), executed(behind)) == ("running", 1, 0)


def test_a_second_worker_on_one_run_is_refused(runs: Path) -> None:
    run_dir = launch.start(runs, named("wait"))
    until(lambda: executed(run_dir) > 0)
    second = subprocess.run([*launch.WORKER, str(run_dir)], capture_output=True, text=True, env=environment())
    assert second.returncode == 2 and "is running and does not wait" in second.stderr
    assert executed(run_dir) == 1 and state(run_dir) == "running"


def test_damaged_runs_are_listed_left_alone_and_block_nobody(runs: Path) -> None:
    damaged = {}
    for name, content in product((STATUS, SPEC), (b"", b"{", b"\xff\x00", None)):
        path = launch.create(runs, named("quick"))
        (path / name).unlink() if content is None else (path / name).write_bytes(content)
        damaged[path] = name, {file.name: file.read_bytes() for file in path.iterdir()}
    healthy = launch.create(runs, named("quick"))
    assert set(damaged) < set(watch.list_runs(runs))
    for path, (name, _) in damaged.items():
        status = watch.refresh(path)
        assert status.state == watch.DAMAGED and status.error
        assert name in status.error["message"] and "Nothing was deleted" in status.error["fix"]
    assert launch.start_next(runs) == healthy
    until(lambda: state(healthy) == "finished")
    for path, (name, before) in damaged.items():
        assert {file.name: file.read_bytes() for file in path.iterdir()} == before
        if name == SPEC:
            with pytest.raises(InputError, match="cannot be resumed"):
                launch.resume(path)
