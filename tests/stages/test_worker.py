"""What a worker writes while it works, and how every way to end is written down."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.cli.app import main
from core.errors import DataError, LaunchError, NotPrunableError, StopRequested, StorageError
from core.files import write_json
from core.runs import launch, recorder, watch
from core.runs.artifacts import EVENTS, LOG, SPEC, STOP
from core.runs.events import EventReader
from core.runs.recorder import Recorder
from core.runs.status import read_status, write_status
from core.spec.run import RunSpec
from core.stages import worker


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    """A run that waits for this process."""
    handler = signal.getsignal(signal.SIGTERM)
    yield launch.create(tmp_path, RunSpec(goal="evaluate"), mine=True)
    signal.signal(signal.SIGTERM, handler)


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def events(run_dir: Path, type: str) -> list[dict[str, object]]:
    return [event.data for event in EventReader(run_dir / EVENTS).read() if event.type == type]


def test_the_time_left_is_that_of_steps_made_now(run_dir: Path) -> None:
    clock = Clock()
    with Recorder(run_dir, clock=clock) as told:
        told.stage("train")
        clock.now += 5  # reading the checkpoint
        told.goes_on(60)
        clock.now += 10
        told.progress(62, 100)
        assert read_status(run_dir).eta_s == pytest.approx(38 * 5)
        told.stage("plan")
        clock.now += 1
        told.progress(1, 3)
        assert read_status(run_dir).eta_s == pytest.approx(2)


def test_status_and_events_tell_how_far_a_stage_is(run_dir: Path) -> None:
    clock = Clock()
    with Recorder(run_dir, clock=clock) as told:
        told.begin({"load": "Loading the model", "score": "Scoring units"})
        told.stage("score")
        clock.now += 10
        told.progress(1, 5, "windows")
        status = read_status(run_dir)
        assert (status.state, status.stage, status.stages) == ("running", "score", ["load", "score"])
        assert status.title == "Scoring units"
        assert status.progress == pytest.approx(0.2)
        assert status.eta_s == pytest.approx(40)
        assert status.message == "1 of 5 windows"
        assert status.pid == os.getpid() and watch.worker_alive(status)
        told.metric("ppl_before", 0, 9.5)
        told.end("finished")
    assert events(run_dir, "stage") == [{"index": 1, "stages": ["load", "score"], "title": "Scoring units"}]
    assert events(run_dir, "progress") == [{"done": 1, "total": 5, "unit": "windows"}]
    assert events(run_dir, "metric") == [{"name": "ppl_before", "step": 0, "value": 9.5}]
    assert events(run_dir, "done") == [{"state": "finished"}]
    status = read_status(run_dir)
    assert (status.state, status.progress, status.eta_s) == ("finished", 1.0, None)


def test_progress_is_written_at_most_four_times_a_second_and_at_the_end(run_dir: Path) -> None:
    clock = Clock()
    with Recorder(run_dir, clock=clock) as told:
        told.stage("score")
        for done in range(1, 101):
            clock.now += 0.01
            told.progress(done, 100)
    seen = [data["done"] for data in events(run_dir, "progress")]
    assert 4 <= len(seen) <= 6 and seen[-1] == 100


def test_a_heart_beats_without_any_progress(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "BEAT_S", 0.01)
    with Recorder(run_dir) as told:
        first = read_status(run_dir).heartbeat
        end = time.monotonic() + 60
        while read_status(run_dir).heartbeat == first:
            assert time.monotonic() < end, "no heartbeat"
        (run_dir / STOP).touch()
        while read_status(run_dir).state != "stopping":
            assert time.monotonic() < end, "the request to stop was not seen"
        told.end("stopped")


def test_a_late_heartbeat_does_not_undo_the_end(run_dir: Path) -> None:
    with Recorder(run_dir) as told:
        told.end("finished")
        told._write()
    assert read_status(run_dir).state == "finished"


def test_a_worker_thought_lost_comes_back_at_its_next_beat(run_dir: Path) -> None:
    with Recorder(run_dir) as told:
        status = read_status(run_dir)
        status.state = "crashed"
        write_status(run_dir, status)
        told._write()
        assert read_status(run_dir).state == "running"


def test_what_is_asked_between_two_steps_stops_the_run(run_dir: Path) -> None:
    steps = []

    def work(_: Path, told: Recorder) -> None:
        told.stage("score")
        for step in range(10):
            steps.append(step)
            if step == 3:
                (run_dir / STOP).touch()
            told.progress(step, 10)

    with pytest.raises(StopRequested, match="runs resume"):
        worker.execute(run_dir, job=work)
    assert steps == [0, 1, 2, 3]
    status = read_status(run_dir)
    assert status.state == "stopped" and status.error is None and not (run_dir / STOP).exists()


def test_ctrl_c_stops_a_run_in_the_foreground(run_dir: Path) -> None:
    def work(_: Path, told: Recorder) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StopRequested):
        worker.execute(run_dir, job=work)
    assert read_status(run_dir).state == "stopped"
    assert signal.getsignal(signal.SIGTERM) is before  # who called, and what it starts, may still be ended


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


@pytest.mark.parametrize(
    ("error", "kind", "message", "fix"),
    [
        (DataError("The text is empty."), "DataError", "The text is empty.", "of a pruning run, Clone"),
        (NotPrunableError("No."), "NotPrunableError", "No.", "See the log"),
        (StorageError("Full."), "StorageError", "Full.", "nothing finished is lost"),
        (OSError(errno.ENOSPC, "No space left"), "StorageError", "free some space", "Free some space"),
        (
            RuntimeError("I/O error: No space left on device (os error 28)"),
            "StorageError",
            "No space",
            "Free",
        ),
        (MemoryError(), "LaunchError", "Memory ran out", "resume"),
        (OutOfMemoryError("CUDA"), "LaunchError", "Memory ran out; use fewer samples", "resume"),
        (KeyError("gone"), "KeyError", "This is a bug in the workbench: KeyError", LOG),
    ],
)
def test_every_failure_says_what_happened_and_what_to_do(
    run_dir: Path, error: Exception, kind: str, message: str, fix: str
) -> None:
    def work(_: Path, told: Recorder) -> None:
        told.stage("score")
        raise error

    with pytest.raises(Exception, match=r".") as caught:
        worker.execute(run_dir, job=work)
    status = read_status(run_dir)
    assert status.state == "failed" and status.error is not None
    assert status.error["type"] == kind == type(caught.value).__name__
    assert message in status.error["message"] and fix in status.error["fix"]
    assert "Traceback" in (run_dir / LOG).read_text()
    assert events(run_dir, "error") == [status.error]
    assert watch.refresh(run_dir).state == "failed"


def test_a_full_disk_fails_the_run_with_room_for_saying_so(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_aside = run_dir / recorder.RESERVE
    real = Path.write_text

    def full(path: Path, *args: object, **kwargs: object) -> int:
        if kept_aside.exists():  # until the room kept aside is given back, nothing fits
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    def work(_: Path, told: Recorder) -> None:
        write_json(run_dir / "plan.json", {"finished": True})
        assert kept_aside.stat().st_size == recorder.RESERVE_BYTES
        monkeypatch.setattr(Path, "write_text", full)
        write_json(run_dir / "metrics.json", {})

    with pytest.raises(StorageError, match="free some space"):
        worker.execute(run_dir, job=work)
    status = read_status(run_dir)
    assert status.state == "failed" and status.error and status.error["type"] == "StorageError"
    assert json.loads((run_dir / "plan.json").read_text()) == {"finished": True}
    assert not kept_aside.exists()


@pytest.mark.parametrize("state", ["running", "finished", "stopped"])
def test_a_run_that_does_not_wait_is_not_taken(run_dir: Path, state: str) -> None:
    status = read_status(run_dir)
    status.state = state
    write_status(run_dir, status)
    with pytest.raises(LaunchError, match=f"is {state} and does not wait"):
        worker.execute(run_dir, job=lambda *_: None)


def test_a_run_that_waits_for_another_process_is_not_taken(run_dir: Path) -> None:
    status = read_status(run_dir)
    status.pid = 1
    write_status(run_dir, status)
    with pytest.raises(LaunchError, match="does not wait"):
        worker.execute(run_dir, job=lambda *_: None)


def test_what_a_past_release_asked_for_is_read_and_told(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = json.loads((run_dir / SPEC).read_text())
    write_json(run_dir / SPEC, {**spec, "evaluate": {**spec["evaluate"], "tilt": 2}})
    monkeypatch.setattr("core.stages.pipeline.run", lambda *_: None)
    worker.execute(run_dir)
    warning = "its spec asks for evaluate.tilt=2, which no longer exists; that is left out."
    assert events(run_dir, "message") == [{"text": warning, "level": "warning"}]
    assert f"Warning: {warning}" in (run_dir / LOG).read_text()
    assert main(["runs", "show", run_dir.name, "--runs-dir", str(run_dir.parent)]) == 0
    assert warning in capsys.readouterr().out
    assert main(["prune", "--spec", str(run_dir / SPEC), "--runs-dir", str(run_dir.parent)]) == 2
    assert "evaluate has no field 'tilt'" in capsys.readouterr().err
