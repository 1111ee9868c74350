"""Which buttons a run has, and what is asked before it is deleted."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from core.runs.processes import started_at
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from pruneviz import ASSETS
from pruneviz.context import AppContext
from pruneviz.data import runs
from pruneviz.figures.runs_table import run_heading
from pruneviz.figures.states import progress_html
from pruneviz.tabs.run_buttons import question_html, run_buttons
from pruneviz.tabs.taking import taking_updates
from tests.pruneviz.samples import MEASURED, make_run


@pytest.mark.parametrize(
    ("state", "deletes"), [("finished", True), ("failed", True), ("stopped", True), ("queued", False)]
)
def test_only_what_has_ended_can_be_deleted(tmp_path: Path, state: str, deletes: bool) -> None:
    record = runs.find(tmp_path, make_run(tmp_path, "a", state=state).name)
    assert run_buttons(record)["delete"].interactive is deletes
    assert run_buttons(record)["stop"].interactive is not deletes


def test_neither_an_example_nor_nothing_can_be_deleted(tmp_path: Path) -> None:
    (example, *_) = AppContext(tmp_path, examples_dir=ASSETS / "examples").records("demo")
    assert example.example
    assert not run_buttons(example)["delete"].interactive and not run_buttons(None)["delete"].interactive


def test_the_question_says_what_goes_and_who_used_it(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, "a")
    (run_dir / "weights").write_bytes(bytes(3 * 2**20))
    make_run(tmp_path, "b", RunSpec(model=ModelSpec(str(run_dir))))
    said = question_html(run_dir)
    assert "Delete a with all its files?" in said and "3 MiB" in said and "b worked on what it left" in said


def test_a_run_that_waits_says_behind_which(tmp_path: Path) -> None:
    alive = {"pid": os.getpid(), "pid_started": started_at(os.getpid()), "heartbeat": time.time()}
    make_run(tmp_path, "busy", state="running", created=1.0, **alive)
    make_run(tmp_path, "first", state="queued", created=2.0)
    make_run(tmp_path, "there", state="queued", created=2.5, executor="ray")
    make_run(tmp_path, "second", state="queued", created=3.0)
    for name, behind in (("first", "behind busy ·"), ("second", "behind busy, first ·")):
        record = runs.find(tmp_path, name)
        assert record is not None and behind in progress_html(record)


def test_a_run_is_headed_by_what_it_does() -> None:
    assert run_heading(RunSpec(prune=PruneSpec("ifv", 0.2))) == "Pruning: ifv, 20 %"
    assert run_heading(RunSpec(prune=PruneSpec("ifv", target="params=100M"))) == "Pruning: ifv, params=100M"
    assert run_heading(RunSpec(name="Mine")) == "Mine" and run_heading(None) == "Unreadable run"


def test_a_result_without_its_plan_says_what_is_missing(tmp_path: Path) -> None:
    make_run(tmp_path, "a", metrics=MEASURED)
    record = runs.find(tmp_path, "a")
    assert record is not None
    shown = taking_updates(record, [record])
    assert "no plan.json" in shown["ways"] and "went wrong" not in shown["ways"]
    assert not shown["gguf"].interactive
