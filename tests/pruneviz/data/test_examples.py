"""Runs that come with the program: read only, left out where they are damaged, behind one's own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from core.results.sensitivity import SENSITIVITY
from core.runs import launch
from core.runs.artifacts import CHECKPOINT, GROUPS, MODEL, SPEC
from core.runs.command_line import command_line
from core.runs.status import STATUS
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.explore import ExploreSpec
from core.spec.run import RunSpec
from pruneviz import ASSETS
from pruneviz.context import AppContext
from pruneviz.data.examples import MANIFEST, read_examples
from pruneviz.tabs import compare, widths
from pruneviz.tabs import runs as runs_tab
from pruneviz.tabs.analysis import standing
from pruneviz.tabs.example import example_html, fresh_spec
from tests.examples import COMMANDS, MOST_BYTES, seal
from tests.pruneviz.samples import MEASURED, make_run

EXPLORE = RunSpec(goal="explore", explore=ExploreSpec(analyses=("groups",)))


@pytest.fixture
def app(tmp_path: Path) -> AppContext:
    """Two examples, an analysis and a pruned model, and no run."""
    examples = tmp_path / "examples"
    make_run(examples, "example-a", EXPLORE, with_graph=True, created=1.0)
    make_run(examples, "example-b", metrics=MEASURED, created=2.0)
    seal(examples)
    return AppContext(tmp_path / "runs", examples_dir=examples)


def look(app: AppContext, run: str = "") -> Any:
    return standing(app.records("demo", run), "demo", GROUPS, "groups", run)


def test_those_that_come_with_the_program_are_sound_and_small() -> None:
    there = read_examples(ASSETS / "examples")
    assert there.notes == () and {record.id for record in there.records} == set(COMMANDS)
    files = [path for path in (ASSETS / "examples").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    assert not [path for path in files if {MODEL, CHECKPOINT} & set(path.parts[-2:-1])]


@pytest.mark.parametrize("name", COMMANDS)
def test_what_made_an_example_is_what_it_says(name: str) -> None:
    title, command = COMMANDS[name]
    (example,) = (each for each in read_examples(ASSETS / "examples").records if each.id == name)
    typed = shlex.split(command)
    asked = {*shlex.split(command_line(example.spec))} - {"python", "-m", "core", "--name", title}
    assert asked - {*typed} <= {"--method", "--scope", "--reconstruct", "taylor_second", "global", "bias"}
    assert {*typed} <= asked


def test_an_example_stands_behind_ones_own_and_can_still_be_chosen(app: AppContext) -> None:
    example = app.examples.records[1]
    assert look(app).run_dir == example.path and look(app).shows_example and not look(app).own
    own = make_run(app.runs_dir, "own", EXPLORE, with_graph=True)
    assert look(app).run_dir == own and look(app).example.id == "example-a"
    assert look(app, "example-a").run_dir == example.path and look(app, "example-a").own


def test_an_example_belongs_to_its_model(app: AppContext) -> None:
    assert [record.id for record in app.records("demo")] == ["example-b", "example-a"]
    assert app.records("another/model") == []
    assert len(app.records("another/model", "example-a")) == 2


@pytest.mark.parametrize("name", [GROUPS, SPEC, STATUS])
@pytest.mark.parametrize("damage", ["torn", "gone", "link"])
def test_a_damaged_example_is_left_out_with_a_note(app: AppContext, name: str, damage: str) -> None:
    path = app.examples_dir / "example-a" / name
    whole = path.read_bytes()
    path.unlink()
    if damage == "torn":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "link":
        path.with_name("elsewhere").write_bytes(whole)
        path.symlink_to("elsewhere")
    assert [record.id for record in app.records("demo")] == ["example-b"]
    (note,) = app.examples.notes
    assert "example-a is left out" in note and name in note
    assert ("is missing" if damage == "gone" else "is not as it came") in note
    assert look(app).run_dir is None
    assert note in runs_tab._view(app, "", "runs", "demo")["table"]


def test_without_a_list_of_sums_no_example_is_shown(app: AppContext) -> None:
    (app.examples_dir / MANIFEST).write_text("{")
    assert app.records("demo") == [] and "left out" in app.examples.notes[0]
    assert AppContext(app.runs_dir).examples.records == ()


def test_nothing_can_be_done_to_an_example(app: AppContext) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in app.examples_dir.rglob("*"))
    view = runs_tab._view(app, "", "runs", "demo")
    assert "Example" in view["table"] and view["first"].visible
    row = view["buttons"]
    assert not row["stop"].interactive and not row["resume"].interactive and not row["end"].visible
    assert row["clone"].value == "Make it yours" and row["clone"].interactive
    assert not row["delete"].interactive
    for action in (launch.stop, launch.kill, launch.resume):
        assert "no run example-b" in runs_tab._attempt(app, action, "example-b")
    assert sorted((path, path.stat().st_mtime_ns) for path in app.examples_dir.rglob("*")) == before


def test_compare_shows_what_examples_answered_and_does_not_ask_them(
    app: AppContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = compare._fill(app, "", "", "demo")
    assert filled["models"].value == ["dense", "example-b"] and filled["bar"]["box"].visible
    assert not any(key == "example-b:int8" for _, key in filled["models"].choices)

    class Engine:
        def generate(self, source: str, *_: Any, **__: Any) -> Any:
            assert source == "demo"
            yield {"piece": "Paris"}
            yield {"tokens_per_second": 1.0}

    monkeypatch.setattr(app, "_engine", Engine())
    *_, (_, answers) = compare._answer(app, "", "", "demo", ("The capital is", False, "0", "64", "0", False))
    assert "Paris" in answers and "came without its weights" in answers


def test_own_models_take_the_place_of_examples_in_compare(app: AppContext) -> None:
    make_run(app.runs_dir, "own", metrics=MEASURED)
    filled = compare._fill(app, "", "", "demo")
    assert filled["models"].value == ["dense", "own"] and not filled["bar"]["box"].visible
    assert "example-b" in [key for _, key in filled["models"].choices]


@pytest.mark.parametrize("models", ["", "dense,example-b"])
@pytest.mark.parametrize("state", ["queued", "running", "failed"])
def test_examples_stay_in_compare_until_a_run_of_ones_own_has_finished(
    app: AppContext, models: str, state: str
) -> None:
    make_run(app.runs_dir, "own", state=state)
    filled = compare._fill(app, models, "own", "demo")
    assert filled["models"].value == ["dense", "example-b"] and filled["bar"]["box"].visible
    assert filled["state"].value.count("No model has come out of run own so far; it is left out.") == 1
    make_run(app.runs_dir, "first", metrics=MEASURED)
    assert compare._fill(app, models, "own", "demo")["models"].value == ["dense"]
    assert compare._fill(app, models, "first", "demo")["models"].value == ["dense", "first"]


def test_a_run_like_an_example_is_launched_here(app: AppContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_spawn", lambda run_dir, log: None)

    class Form:
        def filled(self) -> list[Any]:
            return []

    runs_tab._clone(app, Form(), "example-a", "demo")
    (own,) = [record for record in app.records("demo") if not record.example]
    assert own.spec.explore == EXPLORE.explore and not own.spec.extra


def test_a_text_that_did_not_come_along_is_that_of_ones_own_runs(app: AppContext) -> None:
    spec = RunSpec(
        calibration=DataSpec("c4_sample.jsonl", length=64), evaluate=EvalSpec(text="c4", window=128)
    )
    make_run(app.examples_dir, "example-c", spec, metrics=MEASURED, created=3.0)
    seal(app.examples_dir)
    example, *_ = app.examples.records
    assert fresh_spec(app, example).calibration == DataSpec(length=64)
    assert fresh_spec(app, example).evaluate == spec.evaluate
    assert "c4_sample.jsonl did not come along" in example_html([example])
    assert "come along" not in example_html([*app.examples.records[1:]])


def test_widths_offers_examples_of_the_model_alone(app: AppContext) -> None:
    assert widths._examples(app, "", "demo") == []  # no example here has widths
    assert not widths.fill(app, "", [], "demo")["content"].visible
    assert app.latest("demo", SENSITIVITY) is None
