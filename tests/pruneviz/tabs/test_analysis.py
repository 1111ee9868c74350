"""Which state an analysis tab is in."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.results.similarity import SIMILARITY
from core.runs.processes import started_at
from core.spec.explore import Analysis, ExploreSpec
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from pruneviz.context import AppContext
from pruneviz.data.runs import list_runs
from pruneviz.tabs.analysis import AnalysisFrame, standing
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


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_an_attempt_that_left_nothing_is_told_until_a_run_does(tmp_path: Path, state: str) -> None:
    (make_run(tmp_path, "a", explore("similarity"), created=1.0) / SIMILARITY).touch()
    make_run(tmp_path, "b", explore("similarity"), created=2.0, state=state)
    stand = look(tmp_path)
    assert stand.attempt.id == "b" and stand.run_dir.name == "a"
    (make_run(tmp_path, "c", explore("similarity"), created=3.0) / SIMILARITY).touch()
    assert look(tmp_path).attempt is None


def framed(folder: Path) -> str:
    """What the Heads tab says above its drawings, or in their place."""
    context = AppContext(folder)

    async def build() -> AnalysisFrame:  # outside an event loop Gradio makes one that it never closes
        with gr.Blocks():
            return AnalysisFrame(
                context, "heads", "similarity", SIMILARITY, (), "Nothing yet", "Press.", "Go"
            )

    frame = asyncio.run(build())
    updates = frame._show(lambda *_: {frame.content: "drawn"}, None, "demo", "")
    return str(updates[frame.state].value)


def test_above_what_is_there_a_failed_attempt_is_a_line(tmp_path: Path) -> None:
    error = {"type": "x", "message": "no room", "fix": "make some"}
    make_run(tmp_path, "b", explore("similarity"), created=2.0, state="failed", error=error)
    assert "make some" in framed(tmp_path) and 'role="alert"' in framed(tmp_path)
    (make_run(tmp_path, "a", explore("similarity"), created=1.0) / SIMILARITY).touch()
    assert "no room" in framed(tmp_path) and "make some" not in framed(tmp_path)
    assert "earlier run" in framed(tmp_path)


def test_a_stopped_attempt_that_left_nothing_is_named_below_the_empty_state(tmp_path: Path) -> None:
    make_run(tmp_path, "a", explore("similarity"), state="stopped")
    assert "Nothing yet" in framed(tmp_path) and "was stopped" in framed(tmp_path)
