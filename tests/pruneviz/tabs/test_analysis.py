"""Which state an analysis tab is in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from core.results.similarity import SIMILARITY
from core.runs.processes import started_at
from core.spec.explore import Analysis, ExploreSpec
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from pruneviz.data.runs import list_runs
from pruneviz.tabs.analysis import standing
from tests.pruneviz.samples import make_run


def explore(*analyses: Analysis, model: str = "demo") -> RunSpec:
    return RunSpec(goal="explore", model=ModelSpec(model), explore=ExploreSpec(analyses=analyses))


def look(folder: Path) -> Any:
    return standing(list_runs(folder), "demo", SIMILARITY, "similarity")


def test_nothing_there(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert (found.run_dir, found.live, found.failed) == (None, None, None)


def test_the_artifact_of_the_right_model_is_found(tmp_path: Path) -> None:
    mine = make_run(tmp_path, "a", explore("similarity"))
    other = make_run(tmp_path, "b", explore("similarity", model="other/model"))
    for run in (mine, other):
        (run / SIMILARITY).touch()
    assert look(tmp_path).run_dir == mine


def test_a_run_that_makes_something_else_is_not_waited_for(tmp_path: Path) -> None:
    make_run(tmp_path, "a", explore("groups"), state="queued")
    assert look(tmp_path).live is None
    make_run(tmp_path, "b", explore("groups", "similarity"), state="queued")
    assert look(tmp_path).live.id == "b"


def test_a_run_at_work_is_live(tmp_path: Path) -> None:
    import os

    own = os.getpid()
    make_run(
        tmp_path, "a", explore("similarity"),
        state="running", pid=own, pid_started=started_at(own), heartbeat=time.time(),
    )  # fmt: skip
    assert look(tmp_path).live.id == "a" and look(tmp_path).failed is None


@pytest.mark.parametrize("state", ["failed", "crashed"])
def test_a_failure_is_shown_only_while_there_is_nothing_to_show(tmp_path: Path, state: str) -> None:
    make_run(tmp_path, "a", explore("similarity"), state=state)
    assert look(tmp_path).failed.id == "a"
    (make_run(tmp_path, "b", explore("similarity"), created=1.0) / SIMILARITY).touch()
    assert look(tmp_path).failed is None


def test_a_stopped_run_is_no_failure(tmp_path: Path) -> None:
    make_run(tmp_path, "a", explore("similarity"), state="stopped")
    assert look(tmp_path).failed is None
