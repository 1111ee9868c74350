"""What may start: runs that were created here; and a model's own code only where somebody here allowed it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import InputError, LaunchError
from core.runs import launch
from core.runs.artifacts import SPEC
from core.runs.origin import made_here
from core.runs.status import read_status, write_status
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from core.stages.worker import adopt
from tests.runs.waiting import named, state, until

TRUSTING = RunSpec(goal="evaluate", model=ModelSpec(trust_remote_code=True))


def copied(run_dir: Path) -> Path:
    """A copy of a run, with all of its files, that says it waits."""
    copy = run_dir.with_name("copied")
    shutil.copytree(run_dir, copy)
    write_status(copy, replace(read_status(copy), state="queued"))
    return copy


def test_a_folder_that_was_copied_in_is_not_started_until_somebody_resumes_it(runs: Path) -> None:
    copy = copied(launch.create(runs, named("quick")))
    launch.start_next(runs)
    until(lambda: state(copy) == "stopped")
    assert "not created here" in read_status(copy).message and not (copy / "executed").exists()
    launch.resume(copy)
    until(lambda: launch.start_next(runs) is not None or state(copy) == "finished")
    until(lambda: state(copy) == "finished")


def test_a_spec_that_was_changed_is_not_started_but_facts_may_be_added(runs: Path) -> None:
    run_dir = launch.create(runs, named("quick"))
    raw = json.loads((run_dir / SPEC).read_text())
    (run_dir / SPEC).write_text(json.dumps({**raw, "extra": {"versions": {"torch": "2"}}}))
    assert made_here(run_dir)
    (run_dir / SPEC).write_text(json.dumps({**raw, "seed": 3}))
    assert not made_here(run_dir)
    assert launch.start_next(runs) is None and state(run_dir) == "stopped"


def test_another_installation_is_not_here(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = launch.create(runs, named("quick"))
    assert made_here(run_dir)
    monkeypatch.setenv("PRUNEVIZ_STATE_DIR", str(tmp_path / "other"))
    assert not made_here(run_dir)


def test_code_of_a_model_runs_only_in_runs_that_were_created_here(runs: Path) -> None:
    run_dir = launch.create(runs, TRUSTING)
    copy = copied(run_dir)
    with pytest.raises(InputError, match="was not created here"):
        adopt(copy)
    write_status(copy, replace(read_status(copy), state="stopped"))
    with pytest.raises(InputError, match="start a new run with --trust-remote-code"):
        launch.resume(copy)
    adopt(run_dir)
    assert state(run_dir) == "running"


def test_the_queue_has_a_length(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEVIZ_QUEUE", "2")
    for _ in range(2):
        launch.create(runs, named("quick"))
    with pytest.raises(LaunchError, match=r"2 runs wait in .* no more than 2 may"):
        launch.create(runs, named("quick"))
    launch.create(runs, named("mine"), mine=True)
    monkeypatch.setenv("PRUNEVIZ_QUEUE", "many")
    with pytest.raises(InputError, match="PRUNEVIZ_QUEUE must be a number"):
        launch.create(runs, named("quick"))
