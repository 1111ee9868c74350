"""Processes that a launcher started together: what says so is taken out of the environment, or refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import LaunchError
from core.runs import company, launch, watch
from tests.runs.waiting import named

MEETING = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"}
TORCHRUN = {**MEETING, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "ROLE_NAME": "default"}
AGENT = {"TORCHELASTIC_USE_AGENT_STORE": "True", "ACCELERATE_MIXED_PRECISION": "bf16"}


@pytest.fixture(autouse=True)
def alone_afterwards() -> Iterator[None]:
    yield
    company._joined.clear()


def say(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_what_a_launcher_says_is_taken_and_nobody_after_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, **TORCHRUN, **AGENT, OMP_NUM_THREADS="3")
    mine = company.join()
    assert mine is not None and mine is company.company() and company.size() == 4
    assert (mine.rank, mine.size, mine.local_rank, mine.local_size) == (1, 4, 1, 2)
    assert mine.variables == {**TORCHRUN, **AGENT}
    assert not {*TORCHRUN, *AGENT} & {*os.environ} and os.environ["OMP_NUM_THREADS"] == "3"


def test_variables_that_somebody_set_by_hand_are_of_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, **MEETING)
    mine = company.join()
    assert mine is not None and (mine.local_rank, mine.local_size) == (1, 4)


def test_one_process_is_no_company(monkeypatch: pytest.MonkeyPatch, runs: Path) -> None:
    say(monkeypatch, **{**MEETING, "WORLD_SIZE": "1", "RANK": "0"})
    assert company.join() is None and company.size() == 1
    assert launch.create(runs, named("alone")).is_dir()


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_one_of_several_that_cannot_meet_makes_no_run(
    name: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = launch.create(runs, named("alone"))
    monkeypatch.setenv(name, "2")
    assert company.join() is None
    with pytest.raises(LaunchError, match=f"one of 2 processes .{name}=2.*torchrun.*--processes 2"):
        launch.create(runs, named("two"))
    with pytest.raises(LaunchError, match="one of 2 processes"):
        launch.resume(run_dir)
    assert watch.list_runs(runs) == [run_dir]
