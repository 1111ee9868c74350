"""What becomes of a run's folder at an executor: it waits, works, is lost, is refused, is stopped."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.cluster import placed
from core.cluster.executor import Outcome
from core.cluster.placed import TRIES, Placed
from core.errors import LaunchError
from core.files import write_text
from core.runs import launch, watch
from core.runs.artifacts import STOP
from core.runs.processes import host, started_at
from core.runs.recorder import Recorder
from core.runs.status import Status, read_status
from core.stages import worker
from tests.runs.waiting import named


class Imagined:
    """An executor whose tasks end as a test says."""

    title = "a cluster"
    lacks = ""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.ended: Outcome | None = None
        self.cancelled = 0

    def submit(self, call: dict[str, Any]) -> Imagined:
        self.calls.append(call)
        self.ended = None
        return self

    def outcome(self) -> Outcome | None:
        return self.ended

    def shortage(self) -> str:
        return self.lacks

    def cancel(self) -> None:
        self.cancelled += 1


class Case:
    """A run at an imagined executor."""

    def __init__(self, folder: Path) -> None:
        self.executor, self.said = Imagined(), list[str]()
        self.run_dir = launch.create(folder, named("case"), mine=True)
        self.run = Placed(self.executor, self.run_dir, "module", self.said.append)
        self.run.submit(read_status(self.run_dir), {})

    @property
    def status(self) -> Status:
        return read_status(self.run_dir)

    def begins(self) -> None:
        """A node takes it over."""
        worker.adopt_for(self.run_dir, tuple(self.executor.calls[-1]["keeper"]))

    def ends(self, state: str) -> None:
        """The node ends it."""
        with Recorder(self.run_dir, kept=True) as recorder:
            recorder.end(state)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_it_waits_in_the_name_of_the_process_that_waits(case: Case) -> None:
    assert (case.status.state, case.status.message) == ("starting", "Waiting for a cluster")
    assert (case.status.pid, case.status.host) == (os.getpid(), host())
    assert case.executor.calls[0]["keeper"] == [host(), os.getpid(), started_at(os.getpid())]
    before = case.status.heartbeat
    time.sleep(0.01)
    assert not case.run.over() and case.status.heartbeat > before


def test_what_no_node_can_take_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Imagined, "lacks", "no node has 1 CPUs and 8 GPUs; there are 4 CPUs and 1 GPUs")
    assert Case(tmp_path).status.message.endswith("Waiting for a cluster: no node has 1 CPUs and 8 GPUs; "
    "there are 4 CPUs and 1 GPUs")  # fmt: skip


def test_a_node_works_on_it_and_ends_it(case: Case) -> None:
    case.begins()
    assert not case.run.over()
    assert (case.status.state, case.status.node, case.status.pid) == ("running", host(), os.getpid())
    case.ends("finished")
    case.executor.ended = Outcome("done")
    assert case.run.over() and case.status.state == "finished" and case.said == []


def test_a_second_node_does_not_take_it_over(case: Case) -> None:
    case.begins()
    with pytest.raises(LaunchError, match="is running and does not wait for this node"):
        case.begins()


def test_a_lost_node_is_followed_by_another_a_few_times(case: Case) -> None:
    for number in range(TRIES):
        case.begins()
        case.executor.ended = Outcome("lost", "the node died")
        assert not case.run.over() and len(case.executor.calls) == number + 2
        assert (case.status.state, case.status.node) == ("starting", "")
    assert case.said[0] == f"{host()} was lost (the node died); it goes on elsewhere, try 2 of {TRIES + 1}."
    case.executor.ended = Outcome("lost", "the node died")
    assert case.run.over() and case.status.state == "failed"
    assert case.status.message == f"its node was lost, after {TRIES} before it: the node died"


def test_what_a_node_refuses_fails_with_its_words(case: Case) -> None:
    case.executor.ended = Outcome("refused", "Node n7 has no folder /runs")
    assert case.run.over()
    assert case.status.state == "failed" and case.status.error
    assert case.status.error["message"] == "Node n7 has no folder /runs"


def test_a_node_that_ends_after_its_run_has_lost_nothing(case: Case) -> None:
    case.begins()
    case.ends("stopped")
    case.executor.ended = Outcome("lost", "the node died")
    assert case.run.over() and case.status.state == "stopped"


def test_a_worker_that_ends_without_a_word_is_waited_for_and_then_lost(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.begins()
    case.executor.ended = Outcome("done")
    assert not case.run.over() and len(case.executor.calls) == 1
    monkeypatch.setattr(placed, "SEEN_S", 0.0)
    assert not case.run.over() and len(case.executor.calls) == 2
    assert "ended without a word" in case.said[0]


def test_stop_takes_back_what_waits(case: Case) -> None:
    case.run.stop()
    assert case.run.over() and case.executor.cancelled == 1
    assert case.status.state == "stopped" and not (case.run_dir / STOP).exists()


def test_stop_leaves_it_to_the_node_that_works(case: Case) -> None:
    case.begins()
    case.run.stop()
    assert not case.run.over() and case.executor.cancelled == 0
    assert watch.refresh(case.run_dir).state == "stopping"


def test_a_lost_run_that_was_to_stop_stops(case: Case) -> None:
    case.begins()
    write_text(case.run_dir / STOP, "")
    case.executor.ended = Outcome("lost", "the node died")
    assert case.run.over() and case.status.state == "stopped" and len(case.executor.calls) == 1


def test_a_worker_that_was_given_up_sees_it(case: Case) -> None:
    case.begins()
    with Recorder(case.run_dir, kept=True) as late:
        assert not late._taken_over()
        late._over.set()  # it is suspended: it writes nothing
        case.executor.ended = Outcome("lost", "no heartbeat")
        case.run.over()
        assert late._taken_over()
        case.begins()
        assert late._taken_over()
        with Recorder(case.run_dir, kept=True) as second:
            assert not second._taken_over()


def test_runs_for_a_cluster_do_not_wait_for_one_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Path] = []
    monkeypatch.setattr(launch, "_begun", lambda path: begun.append(path) or True)
    here, there, behind = (launch.create(tmp_path, named(name)) for name in ("here", "there", "behind"))
    monkeypatch.setattr(
        launch,
        "read",
        lambda path: replace(read_status(path), executor="ray" if path == there else "local"),
    )
    assert launch.start_next(tmp_path) == here
    assert begun == [here, there] and behind not in begun


def test_a_shared_disk_may_be_late(case: Case) -> None:
    late = time.time() - 100.0
    there = Status(state="running", pid=os.getpid(), pid_started=started_at(os.getpid()), host=host())
    there = replace(there, heartbeat=late, started=late, created=late, executor="ray")
    assert not watch.lost(there) and watch.lost(replace(there, executor="local"))
    assert watch.lost(replace(there, heartbeat=late - 200, started=late - 200, created=late - 200))
