from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core.methods import with_preset
from core.results.masks import MASKS, MaskState, write_masks
from core.runs.events import Event
from core.spec.run import RunSpec
from pruneviz.data.runs import read_run, training_notes
from pruneviz.figures.run_detail import detail_html
from pruneviz.tabs.training import training_updates
from tests.pruneviz.samples import make_run

POINT = Event("metric", "train", {"name": "train.expected", "step": 1, "value": 0.1})
SPEC = with_preset(RunSpec(), "nuteprune", "demo", 20)


def updates(path: Path) -> dict[str, Any]:
    return training_updates(read_run(path), [POINT])


def test_a_training_is_shown_with_its_masks_as_soon_as_there_are_some(tmp_path):
    run = make_run(tmp_path, "a", SPEC, state="stopped", stage="train")
    shown = updates(run)
    assert shown["box"].visible and "1 of 20" in shown["facts"] and not shown["masks_box"].visible
    ones = np.ones((2, 4), np.float32)
    write_masks(run, MaskState(1, 20, {"query_head": ones}, {"query_head": ones > 0}))
    shown = updates(run)
    assert shown["masks_box"].visible and "100.0 % of query heads" in shown["about_masks"]
    (run / MASKS).write_bytes(b"<torn>")
    assert "is damaged" in updates(run)["about_masks"]


def test_a_training_of_several_processes_says_whose_memory_is_told(tmp_path):
    spec = replace(SPEC, prune=replace(SPEC.prune, options={**SPEC.prune.options, "processes": 2}))
    run = make_run(tmp_path, "two", spec, state="running", stage="train")
    assert "one of 2 processes" in updates(run)["facts"]
    joined = replace(SPEC, extra={"fitted": {"nuteprune": {"processes": 4}}})  # by a launcher
    run = make_run(tmp_path, "four", joined, state="running", stage="train")
    assert "one of 4 processes" in updates(run)["facts"]


def test_other_runs_and_trainings_that_have_said_nothing_show_none(tmp_path):
    assert not updates(make_run(tmp_path, "b"))["box"].visible
    quiet = training_updates(read_run(make_run(tmp_path, "c", SPEC)), [])
    assert not quiet["box"].visible and not training_updates(None, [])["box"].visible


def test_stopping_says_what_is_saved_and_where_resume_goes_on(tmp_path):
    run = read_run(make_run(tmp_path, "d", SPEC, state="stopped", stage="train"))
    stopping = replace(run, status=replace(run.status, state="stopping"))
    assert "finished and saved first" in training_notes(stopping, [])[0]
    assert training_notes(replace(run, status=replace(stopping.status, stage="evaluate")), []) == []
    stopped = read_run(make_run(tmp_path, "e", SPEC, state="stopped", stage="train"))
    said = [Event("message", "train", {"text": "Stopped after step 5 of 20, which is saved"})]
    notes = training_notes(stopped, said)
    assert notes == ["Stopped after step 5 of 20, which is saved. Resume goes on after it."]
    assert detail_html(stopped, notes=notes).count("Stopped") == 1
    assert "Stopped on request" in detail_html(stopped)
