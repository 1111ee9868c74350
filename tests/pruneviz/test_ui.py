from __future__ import annotations

import collections
import inspect
import json
import shutil

import gradio as gr
import pytest

from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from pruneviz import scripts
from pruneviz.context import TABS, AppContext
from pruneviz.tabs import compare, model, new_run
from pruneviz.tabs import runs as runs_tab
from tests.pruneviz.samples import MEASURED, make_run
from tests.pruneviz.scored import task, write_benchmarks


@pytest.fixture(scope="module")
def page(tmp_path_factory, build_page):
    app = AppContext(tmp_path_factory.mktemp("runs"))
    return build_page(app), app


def test_all_tabs_are_there_in_order(page):
    tabs = [block for block in page[0].blocks.values() if isinstance(block, gr.Tab)]
    assert [(tab.id, tab.label) for tab in tabs] == list(TABS.items())


def test_no_state_that_a_reload_would_lose(page):
    assert not [block for block in page[0].blocks.values() if isinstance(block, gr.State)]


def test_element_ids_are_unique(page):
    ids = [getattr(block, "elem_id", None) for block in page[0].blocks.values()]
    twice = [name for name, times in collections.Counter(filter(None, ids)).items() if times > 1]
    assert not twice


def test_quiet_events_name_one_box_as_loading_and_not_all_they_change(page):
    events = page[0].get_config_file()["dependencies"]
    quiet = [event for event in events if event["show_progress"] == "hidden"]
    (marked,) = {tuple(event["show_progress_on"]) for event in quiet}
    assert len(quiet) > 50 and len(marked) == 1


def test_a_change_that_comes_while_one_is_answered_is_answered_too(page):
    """An address is read in several steps: of the last one nothing would be seen."""
    several = [f for f in page[0].fns.values() if f.fn and len(f.targets) > 1]
    changing = [f for f in several if "change" in {event for _, event in f.targets}]
    assert len(changing) > 5 and {f.trigger_mode for f in changing} == {"always_last"}


def test_a_list_that_is_closed_again_without_a_choice_breaks_nothing(page):
    """Gradio then tells that nothing was chosen, as None."""
    closed, tried = [b for b in page[0].blocks.values() if isinstance(b, gr.Dropdown)], 0
    for event in page[0].fns.values():
        for box in closed:
            if event.fn and box in event.inputs and (box._id, "input") in event.targets:
                told = event.fn(*(None if each is box else each.value for each in event.inputs))
                collections.deque(told if inspect.isgenerator(told) else (), maxlen=0)
                tried += 1
    assert tried > 8


def test_every_clock_stands_still_at_first(page):
    assert not [b for b in page[0].blocks.values() if isinstance(b, gr.Timer) and b.active]


def test_the_model_in_the_script_is_quoted():
    assert '"x\\"y"' in scripts.restore('x"y')


@pytest.fixture
def app(tmp_path, build_page):
    context = AppContext(tmp_path / "runs")
    build_page(context)
    return context


def _view(app, run, tab="runs"):
    return runs_tab._view(app, run, tab)


def test_no_runs_is_an_empty_state(app):
    view = _view(app, "")
    assert "No runs yet" in view["table"] and view["timer"].active is False


def test_a_run_that_is_not_there_is_said(app):
    alone = _view(app, "missing")["detail"]
    assert "no run missing" in alone and "New run" in alone and "table above" not in alone
    make_run(app.runs_dir, "a")
    beside = _view(app, "missing")["detail"]
    assert "no run missing" in beside and "table above" in beside and "went wrong" not in beside


def test_the_newest_run_is_shown_where_none_was_chosen(app):
    make_run(app.runs_dir, "a", created=1.0)
    make_run(app.runs_dir, "b", created=2.0, metrics=MEASURED)
    view = _view(app, "")
    assert "26.2 → 59.2" in view["detail"] and view["buttons"]["compare"].interactive
    assert view["command"].startswith("python -m core prune demo")


def test_the_clock_runs_only_here_and_only_while_something_is_live(app):
    make_run(app.runs_dir, "a", state="queued", stage="", stages=[])
    assert _view(app, "a")["timer"].active and _view(app, "a")["buttons"]["stop"].interactive
    assert not _view(app, "a", tab="model")["timer"].active


def test_opening_the_tab_starts_its_clock_whatever_tab_the_address_still_names(page, request):
    blocks, app = page
    run = make_run(app.runs_dir, "a", state="queued", stage="", stages=[])
    request.addfinalizer(lambda: shutil.rmtree(run))
    tab = app.tabs["runs"]
    opened = [f for f in blocks.fns.values() if (tab._id, "select") in f.targets and f.fn]
    (show,) = [f for f in opened if any(getattr(each, "elem_id", "") == "run-detail" for each in f.outputs)]
    assert app.url.tab not in show.inputs
    (clock,) = [update for part, update in show.fn("", "demo").items() if isinstance(part, gr.Timer)]
    assert clock.active


def test_buttons_follow_the_state(app):
    make_run(app.runs_dir, "a", state="failed", error={"type": "x", "message": "no", "fix": "do"})
    view = _view(app, "a")
    row = view["buttons"]
    assert row["resume"].interactive and not row["stop"].interactive and not row["compare"].interactive


def test_a_recovered_run_can_be_compared_too(app):
    recover = RunSpec(goal="recover", recover=RecoverSpec(method="lora"))
    make_run(app.runs_dir, "a", recover, metrics=MEASURED)
    assert _view(app, "a")["buttons"]["compare"].interactive


def test_launching_makes_a_run_and_names_it(app, monkeypatch):
    from core.runs import launch

    monkeypatch.setattr(launch, "_spawn", lambda run_dir, log: None)
    message, run = new_run._launch(app, lambda: RunSpec(prune=PruneSpec(sparsity=0.3)))
    assert not message.visible and (app.runs_dir / run / "spec.json").exists()


def test_a_launch_that_is_refused_says_why(app, monkeypatch):
    app.runs_dir.parent.joinpath("file").touch()
    app.runs_dir = app.runs_dir.parent / "file" / "runs"
    message, _ = new_run._launch(app, lambda: RunSpec())
    assert message.visible and "--runs-dir" in message.value


def _compare(app, models="", run=""):
    return compare._fill(app, models, run, "demo")


def test_compare_needs_a_finished_pruning_run(app):
    make_run(app.runs_dir, "a", RunSpec(goal="explore"))
    make_run(app.runs_dir, "b", state="failed")
    filled = _compare(app)
    assert "Nothing to compare yet" in filled["state"].value and filled["to_runs"].visible
    assert not filled["box"].visible


def test_compare_shows_kept_answers_at_once(app):
    path = make_run(app.runs_dir, "a", metrics=MEASURED)
    kept = [{"prompt": "P", "dense": {"text": "D"}, "pruned": {"text": "Q", "tokens_per_second": 2.0}}]
    (path / "samples.json").write_text(json.dumps(kept))
    filled = _compare(app, run="a")
    assert filled["prompt"] == "P" and filled["models"].value == ["dense", "a"]
    cards = json.loads(filled["answers"])["cards"]
    assert [card["text"] for card in cards] == ["D", "Q"] and cards[1]["tokens_per_second"] == 2.0
    assert cards[1]["stretches"] == [["Q", True]]


def test_compare_says_when_a_run_in_the_address_is_gone(app):
    make_run(app.runs_dir, "a", metrics=MEASURED)
    assert "gone" in _compare(app, models="dense,gone,a")["state"].value
    only = _compare(app, models="gone")
    assert "gone" in only["state"].value and not only["box"].visible


def test_compare_says_that_pruned_models_take_turns(app):
    for name in "ab":
        make_run(app.runs_dir, name, metrics=MEASURED)
    assert "take turns" in _compare(app, models="dense,a,b")["state"].value
    assert not _compare(app, models="dense,a")["state"].visible


def test_compare_offers_the_questions_that_flipped(app):
    path = make_run(app.runs_dir, "a", metrics=MEASURED)
    write_benchmarks(path, dense=[task("piqa", "1100")], pruned=[task("piqa", "0101")])
    filled = _compare(app)
    numbers = filled["numbers"]
    assert numbers["flips_of"].value == "piqa a" and "1 lost, 1 gained" in numbers["flips_of"].choices[0][0]
    lost, won = json.loads(numbers["flips"])["lists"]
    assert lost["flips"][0]["question"] == "Question 0?" and won["count"] == 1


def test_choosing_models_writes_the_address():
    assert compare._address(["dense", "b", "a"]) == ("dense,b,a", "b")
    assert compare._address(["dense"]) == ("dense", "")


def test_an_unknown_folder_is_refused_with_the_cause(app):
    class Engine:
        def card(self, source):
            from core.errors import ModelError

            raise ModelError(f"There is no folder or file {source}; give a hub id.")

    app._engine = Engine()
    state, reading, address = list(model._open(app, "/nowhere/model"))[-1]
    assert "There is no folder" in state and address == "" and not reading


def test_units_handed_over_reach_the_field_for_units(page):
    blocks, app = page
    ids = [[getattr(block, "elem_id", None) for block in f.outputs] for f in blocks.fns.values()]
    assert ids.count(["new-run", "new-method", "new-units"]) == len(app.handing_over) == 3


def test_what_was_typed_on_compare_stays_when_the_same_models_are_filled_in_again(app):
    make_run(app.runs_dir, "a", state="finished", metrics=MEASURED)
    first = _compare(app)
    again = compare._fill(app, "", "", "demo", first["shown"])
    assert first["prompt"] == first["library"].value and again["shown"] == first["shown"]
    assert {"prompt", "library", "answers"} <= first.keys() - again.keys()
