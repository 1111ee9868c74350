"""Runs as processes: created, queued, started once, found again, stopped, resumed, and never lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from core import artifacts, launch, processes, watch
from core.artifacts import LOG, SPEC, STATUS, STOP, Status, read_status, write_status
from core.errors import InputError, LaunchError, StorageError, UnknownNameError
from core.spec import DataSpec, EvalSpec, ModelSpec, PruneSpec, RunSpec

FAKE = Path(__file__).with_name("fake_worker.py")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runs folder whose workers do small work; those still there at the end are ended."""
    monkeypatch.setattr(launch, "WORKER", (sys.executable, str(FAKE)))
    monkeypatch.setattr("core.launch._children", [])
    folder = tmp_path / "runs"
    yield folder
    for path in launch.list_runs(folder):
        (path / "go").touch()
    for path in launch.list_runs(folder):
        launch.stop(path)
    until(lambda: not any(child.poll() is None for child in launch._children))


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something holds; fail if it never does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def named(name: str) -> RunSpec:
    return RunSpec(goal="evaluate", name=name)


def state(run_dir: Path) -> str:
    return launch.refresh(run_dir).state


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_one_of_several_processes_makes_no_run(
    name: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    run_dir = launch.create(runs, named("alone"))
    monkeypatch.setenv(name, "2")
    with pytest.raises(LaunchError, match=f"one of 2 processes .{name}=2.*--set processes=2"):
        launch.create(runs, named("two"))
    with pytest.raises(LaunchError, match="one of 2 processes"):
        launch.resume(run_dir)
    assert launch.list_runs(runs) == [run_dir]


def executed(run_dir: Path) -> int:
    path = run_dir / "executed"
    return len(path.read_text().splitlines()) if path.exists() else 0


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


# creating


def test_ids_are_readable_and_unique(tmp_path: Path) -> None:
    spec = RunSpec(prune=PruneSpec("taylor_first", 0.2))
    assert launch.run_id(spec, 0.0)[8:] == f"{launch.run_id(spec, 0.0)[8:15]}-taylor_first-20"
    assert launch.run_id(replace(spec, prune=PruneSpec("a/b c", 0.125)), 0.0).endswith("-a_b_c-12.5")
    paths = [launch.create(tmp_path, spec) for _ in range(5)]
    assert len(set(paths)) == 5
    assert set(launch.list_runs(tmp_path)) == set(paths)
    assert all(state(path) == "queued" for path in paths)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".new")]


def test_relative_paths_are_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "text.txt").write_text("x")
    spec = RunSpec(
        model=ModelSpec("model"), calibration=DataSpec("text.txt"), evaluate=EvalSpec(text="text.txt")
    )
    found = artifacts.read_spec(launch.create(Path("runs"), spec))
    assert found.model.source == str(tmp_path / "model")
    assert found.calibration.name == found.evaluate.text == str(tmp_path / "text.txt")
    assert artifacts.read_spec(launch.create(Path("runs"), RunSpec())) == RunSpec()


def test_a_runs_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another folder with --runs-dir"):
        launch.create(tmp_path / "file" / "runs", RunSpec())
    assert launch.list_runs(tmp_path / "file" / "runs") == []


def test_a_full_disk_leaves_no_half_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(run_dir: Path, status: Status) -> None:
        raise StorageError("No space left; free some space.")

    monkeypatch.setattr(launch, "write_status", full)
    with pytest.raises(StorageError, match="free some space"):
        launch.create(tmp_path, RunSpec())
    assert list(tmp_path.iterdir()) == []


def test_runs_are_found_by_id_or_its_beginning(tmp_path: Path) -> None:
    run_dir = launch.create(tmp_path, RunSpec())
    assert launch.find(tmp_path, run_dir.name) == launch.find(tmp_path, run_dir.name[:9]) == run_dir
    other = launch.create(tmp_path, RunSpec())
    with pytest.raises(UnknownNameError, match=f"{other.name}"):
        launch.find(tmp_path, run_dir.name[:9])
    with pytest.raises(UnknownNameError, match="Unknown run 'nothing'"):
        launch.find(tmp_path, "nothing")


# starting and the queue


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
    error = launch.refresh(second).error
    assert error and error["message"] == "The text is empty; give another one." and error["fix"]
    assert "DataError" in (second / LOG).read_text()


def test_a_bug_is_called_one_and_leaves_its_traceback(runs: Path) -> None:
    run_dir = launch.start(runs, named("bug"))
    until(lambda: state(run_dir) == "failed")
    error = launch.refresh(run_dir).error
    assert error and "This is a bug" in error["message"] and "nobody expected this" in error["message"]
    until(lambda: "ZeroDivisionError" in (run_dir / LOG).read_text())


def test_a_worker_is_detached_and_known_by_pid_and_start(runs: Path) -> None:
    run_dir = launch.start(runs, named("wait"))
    until(lambda: state(run_dir) == "running")
    status = launch.refresh(run_dir)
    assert status.pid is not None and os.getsid(status.pid) != os.getsid(0)
    assert launch.worker_alive(status)
    assert not launch.worker_alive(replace(status, pid_started=status.pid_started - 60))  # type: ignore[operator]
    assert not launch.worker_alive(replace(status, pid=dead_pid()))


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


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(launch.ROOT)}


# crashes


def test_a_killed_worker_shows_as_crashed_and_the_queue_goes_on(runs: Path) -> None:
    first, second = launch.create(runs, named("wait")), launch.create(runs, named("quick"))
    launch.start_next(runs)
    until(lambda: state(first) == "running")
    until(lambda: "stage evaluate" in launch.log_tail(first))
    os.kill(launch.refresh(first).pid, signal.SIGKILL)  # type: ignore[arg-type]
    until(lambda: read_status(first).state == "crashed")  # read only: the waiting parent notices
    error = launch.refresh(first).error
    assert error and "SIGKILL" in error["message"] and "out of memory" in error["message"]
    assert "stage evaluate" in error["log"]
    until(lambda: read_status(second).state == "finished")


def test_a_worker_killed_with_its_parent_is_noticed_by_whoever_looks(runs: Path) -> None:
    run_dir = launch.start(runs, named("wait"))
    until(lambda: state(run_dir) == "running")
    worker = psutil.Process(launch.refresh(run_dir).pid)
    worker.parent().kill()  # type: ignore[union-attr]
    worker.kill()
    until(lambda: state(run_dir) == "crashed")
    error = launch.refresh(run_dir).error
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
    assert launch.refresh(run_dir, -signal.SIGKILL, of=(own + 1,)).state == "running"  # resumed meanwhile
    ended = launch.refresh(run_dir, -signal.SIGKILL, of=(own, own + 1))
    assert ended.state == "crashed" and "was killed (SIGKILL)" in ended.message


def test_a_process_with_the_same_number_is_not_the_worker(tmp_path: Path) -> None:
    assert state(running(tmp_path)) == "running"
    assert state(running(tmp_path, pid_started=time.time() - 10**6)) == "crashed"


def test_a_silent_worker_is_crashed_but_keeps_its_place(tmp_path: Path) -> None:
    run_dir = running(tmp_path, heartbeat=time.time() - 61, started=time.time() - 100, created=0.0)
    behind = launch.create(tmp_path, RunSpec())
    status = launch.refresh(run_dir)
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
    assert launch.refresh(run_dir).state == "finished"


@pytest.mark.parametrize(
    ("code", "said"),
    [(None, "out of memory"), (-9, "SIGKILL"), (-11, "SIGSEGV"), (1, "code 1")],
)
def test_how_a_worker_ended_is_said(code: int | None, said: str) -> None:
    assert said in processes.describe_exit(code)


# stopping and resuming


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
    os.kill(launch.refresh(run_dir).pid, signal.SIGTERM)  # type: ignore[arg-type]
    until(lambda: state(run_dir) == "stopped")


def test_a_worker_that_does_not_listen_is_ended(runs: Path) -> None:
    run_dir = launch.start(runs, named("wait"))
    until(lambda: executed(run_dir) == 1)
    os.kill(launch.refresh(run_dir).pid, signal.SIGSTOP)  # type: ignore[arg-type]
    launch.stop(run_dir)
    pid = launch.refresh(run_dir).pid
    status = launch.kill(run_dir)
    assert status.state == "stopped" and not psutil.pid_exists(pid)  # type: ignore[arg-type]
    until(lambda: state(run_dir) == "stopped")


def test_a_stopped_run_is_resumed_in_its_directory(runs: Path) -> None:
    run_dir = launch.start(runs, named("wait"))
    until(lambda: state(run_dir) == "running")
    launch.stop(run_dir)
    until(lambda: state(run_dir) == "stopped")
    write_status(run_dir, replace(read_status(run_dir), started=1000.0, ended=1060.0))
    (run_dir / "go").touch()
    assert launch.resume(run_dir).state in ("queued", "starting", "running", "finished")
    until(lambda: launch.start_next(runs) is not None or state(run_dir) == "finished")
    until(lambda: state(run_dir) == "finished")
    assert executed(run_dir) == 2 and len(launch.list_runs(runs)) == 1
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


# damage


@pytest.mark.parametrize("name", [STATUS, SPEC])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", None])
def test_a_damaged_run_is_listed_left_alone_and_blocks_nobody(
    runs: Path, name: str, content: bytes | None
) -> None:
    damaged = launch.create(runs, named("quick"))
    (damaged / name).unlink() if content is None else (damaged / name).write_bytes(content)
    before = {path.name: path.read_bytes() for path in damaged.iterdir()}
    healthy = launch.create(runs, named("quick"))
    assert damaged in launch.list_runs(runs)
    status = launch.refresh(damaged)
    assert status.state == watch.DAMAGED
    assert status.error and name in status.error["message"] and "Nothing was deleted" in status.error["fix"]
    assert launch.start_next(runs) == healthy
    until(lambda: state(healthy) == "finished")
    assert {path.name: path.read_bytes() for path in damaged.iterdir()} == before
    if name == SPEC:
        with pytest.raises(InputError, match="cannot be resumed"):
            launch.resume(damaged)


def test_nothing_here_loads_torch() -> None:
    code = "import sys, core.launch, core.commands, core.worker; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert found.stdout.strip() == "False", found.stderr
