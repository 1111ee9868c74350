"""What the Sweep tab asks for, shows while a sweep is on, and launches of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import SpecError
from core.results.sweep import SWEEP, Point, Sweep, write_sweep
from core.runs import launch
from core.runs.artifacts import read_spec
from core.runs.status import read_status, write_status
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from pruneviz.context import AppContext
from pruneviz.figures.sweep import label
from pruneviz.tabs import sweep
from pruneviz.tabs.analysis import Standing, standing
from tests.pruneviz.samples import make_run

FORM: list[Any] = [["l2"], "0.1, 0.2", ["local"], ["none"], "0,1", "16", "none"]
POINT = Point("l2", 0.2, "local", "none", 1, 16, sparsity=0.2, sparsity_total=0.1, params=9, macs=9, ppl=40.0)


@pytest.fixture
def app(tmp_path: Path) -> AppContext:
    return AppContext(tmp_path / "runs")


def made(app: AppContext, name: str = "a", points: tuple[Point, ...] = (POINT,)) -> Path:
    run = make_run(app.runs_dir, name, RunSpec(goal="sweep", sweep=SweepSpec(("l2",))))
    write_sweep(run, Sweep(20.0, 10, 10, "bundled", 256, 4096, "bundled", 4, points))
    return run


def look(app: AppContext) -> Standing:
    return standing(app.records("demo"), "demo", SWEEP, "sweep")


def test_the_form_becomes_a_sweep(app: AppContext) -> None:
    asked = sweep.spec_from(app, "demo", *FORM)
    assert asked.goal == "sweep" and asked.sweep.points == 4
    assert asked.sweep.sparsities == (0.1, 0.2) and asked.sweep.seeds == (0, 1)
    assert "4 points, 2 passes" in sweep._count(app, "demo", *FORM)
    percent = [FORM[0], "10 %, 20%", *FORM[2:]]
    assert sweep.spec_from(app, "demo", *percent) == asked


def test_a_sweep_reads_the_texts_of_its_form(app: AppContext) -> None:
    asked = sweep.spec_from(app, "demo", *FORM, "c4", "wikitext2", "ptb,factbook")
    assert asked.calibration.name == "c4" and asked.evaluate.texts == ("wikitext2", "ptb", "factbook")
    assert sweep.spec_from(app, "demo", *FORM, "bundled", "a.txt", "").evaluate.texts == ("a.txt",)
    same = sweep._count(app, "demo", *FORM, "a.txt", "a.txt", "")
    assert "Calibration and perplexity read the same text, a.txt" in same


@pytest.mark.parametrize(
    ("at", "value", "said", "shown"),
    [
        (0, [], "methods is empty", "“Methods” is empty"),
        (1, "20", "write 0.2", "“Sparsity” must be in [0, 1), got 20; write 0.2 for 20 %."),
        (1, "a", "numbers", "“Sparsities” must be numbers below 1, such as 0.2 or 20 %, got"),
        (4, "", "seeds is empty", "“Seeds” is empty"),
        (6, "layer", "drop takes a kind and how many", "“Whole blocks that go” takes a kind and how many"),
    ],
)
def test_what_cannot_be_swept_is_said_in_place(
    app: AppContext, at: int, value: Any, said: str, shown: str
) -> None:
    form = [*FORM[:at], value, *FORM[at + 1 :]]
    with pytest.raises(SpecError, match=said):
        sweep.spec_from(app, "demo", *form)
    assert shown in sweep._count(app, "demo", *form)


def test_the_newest_sweep_of_the_model_is_shown(app: AppContext) -> None:
    run = made(app)
    make_run(app.runs_dir, "b", RunSpec(goal="explore"))
    assert look(app).run_dir == run
    page = sweep.shown(run, "Automatic", label(POINT))
    assert "1 of 4 points" in page["about"] and "40.0" in page["table"]
    assert page["point"].value == label(POINT)
    assert sweep.shown(run, "Automatic", "gone")["point"].value is None


def test_before_the_first_point_there_is_no_chart_but_words(app: AppContext) -> None:
    page = sweep.shown(made(app, points=()), "Automatic", None)
    assert "No point was measured" in page["empty"].value and page["table"] == ""
    assert not page["lines"].visible and not page["chooser"].visible
    page = sweep.shown(made(app, "b"), "Automatic", None)
    assert not page["empty"].visible and page["lines"].visible and page["chooser"].visible


@pytest.mark.parametrize(("state", "said"), [("stopped", "resume it there"), ("failed", "no room")])
def test_a_sweep_that_ended_early_says_so_beside_its_points(app: AppContext, state: str, said: str) -> None:
    run = made(app)
    error = {"type": "x", "message": "no room", "fix": "make some"} if state == "failed" else None
    write_status(run, replace(read_status(run), state=state, error=error))
    page = sweep.shown(run, "Automatic", None)
    assert said in page["about"] and "40.0" in page["table"]
    write_status(run, replace(read_status(run), state="finished", error=None))
    assert said not in sweep.shown(run, "Automatic", None)["about"]


def test_a_point_is_launched_as_the_run_it_stands_for(app: AppContext, monkeypatch: Any) -> None:
    monkeypatch.setattr(launch, "_spawn", lambda run_dir, log: None)
    made(app)
    problem, run = sweep._launch(app, "demo", look(app), label(POINT))
    spec = read_spec(app.runs_dir / run)
    assert (spec.goal, spec.seed, spec.prune.method, spec.prune.sparsity) == ("prune", 1, "l2", 0.2)
    assert problem == ""
    assert "Choose a point" in sweep._launch(app, "demo", look(app), None)[0]


def test_a_point_is_launched_with_the_options_that_its_method_has(app: AppContext, monkeypatch: Any) -> None:
    monkeypatch.setattr(launch, "_spawn", lambda run_dir, log: None)
    options = {"vector": "structure", "aggregation": "max"}
    asked = RunSpec(goal="sweep", prune=PruneSpec(options=options), sweep=SweepSpec(("l2", "taylor_vector")))
    run_dir, points = make_run(app.runs_dir, "a", asked), (POINT, replace(POINT, method="taylor_vector"))
    write_sweep(run_dir, Sweep(20.0, 10, 10, "bundled", 256, 4096, "bundled", 2, points))
    for point, own in zip(points, ({}, options), strict=True):
        problem, run = sweep._launch(app, "demo", look(app), label(point))
        assert (problem, read_spec(app.runs_dir / run).prune.options) == ("", own)
