"""What a choice of units changes, and what is said when it cannot be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from core.errors import SpecError
from core.spec.run import RunSpec
from pruneviz.context import AppContext
from pruneviz.figures.levels import Focus
from pruneviz.tabs import structure_plan, structure_view
from pruneviz.tabs.structure_view import chosen_text, grid, groups_spec, look
from tests.pruneviz.samples import FFN, graph, make_run


@pytest.mark.parametrize(
    ("what", "text", "wanted"),
    [
        ("set", "0-2", "L00.query_head=1 L01.ffn_channel=0-2"),
        ("set", "", "L00.query_head=1"),
        ("add", "0, 5", "L00.query_head=1 L01.ffn_channel=0,3-5"),
        ("all", "", f"L00.query_head=1 L01.ffn_channel=0-{FFN - 1}"),
        ("none", "", "L00.query_head=1"),
        ("every", "", "L00.ffn_channel=3-4 L00.query_head=1 L01.ffn_channel=3-4"),
    ],
)
def test_a_choice_changes_its_group_only(what, text, wanted):
    group = graph().group("L01.ffn_channel")
    assert chosen_text(graph(), group, what, text, "L01.ffn_channel=3-4 L00.query_head=1") == wanted


@pytest.mark.parametrize(
    ("what", "text", "said"),
    [
        ("add", "5-2", "The range 5-2 runs backwards; write 2-5."),
        ("add", "99", f"There is no unit 99; the units are 0 to {FFN - 1}."),
        ("add", "", "No unit was given"),
        ("every", "", "No unit of this layer is chosen yet"),
    ],
)
def test_what_cannot_be_chosen_is_explained(what, text, said):
    with pytest.raises(SpecError) as error:
        chosen_text(graph(), graph().group("L01.ffn_channel"), what, text, "")
    assert said in str(error.value)


@pytest.fixture
def app(tmp_path):
    context = AppContext(tmp_path / "runs")
    make_run(context.runs_dir, "a", RunSpec(goal="explore"), with_graph=True)
    return context


def test_a_kind_that_is_not_offered_is_refused_with_its_reason(app, monkeypatch):
    first, *rest = graph().groups
    fixed = replace(
        graph(), groups=(replace(first, prunable=False, reason="found, not offered: it is fixed"), *rest)
    )
    monkeypatch.setattr("pruneviz.tabs.structure_view.runs.graph_of", lambda run_dir: fixed)
    text, said = structure_view.choose(app, "demo", first.id, "add", "0", "")
    assert "Key-value heads cannot be chosen: it is fixed." in said.value and text is None
    assert json.loads(grid(fixed, Focus(first.id), ""))["fixed"] == "it is fixed"


def test_looking_at_a_unit_shows_what_the_group_shows_and_more():
    unit = look(graph(), Focus("L01.ffn_channel", 3), "L01.ffn_channel=0-1")
    assert json.loads(unit["picker"]) == {
        "group": "L01.ffn_channel", "units": FFN, "unit": 3, "word": "FFN channel", "chosen": "0-1",
        "fixed": None,
    }  # fmt: skip
    assert "Everything in this unit" in unit["members"] and unit["unit"].visible and not unit["whole"].visible
    assert [choice[0] for choice in unit["first"].choices] == ["layer1.down.weight", "layer1.up.weight"]
    group = look(graph(), Focus("L01.ffn_channel"), "")
    assert "One unit saves" in group["price"] and group["group"].visible and not group["unit"].visible
    assert look(graph(), Focus(), "")["whole"].visible


def test_several_units_cannot_be_looked_at_at_once(app):
    several = structure_view.look_up(app, "demo", "L01.ffn_channel", "1-3", "")
    assert "One unit can be looked at at a time, got 3" in several["said"].value and len(several) == 1
    view = structure_view.look_up(app, "demo", "L01.ffn_channel", "3", "")
    assert (view["layer_box"], view["unit_box"]) == ("1", "L01.ffn_channel/3")


def test_buttons_wait_for_a_plan_that_can_be(app):
    for text, ready in (("", False), ("L01.ffn_channel=3", True), (f"L01.ffn_channel=0-{FFN - 1}", False)):
        card = structure_plan.shown(graph(), "demo", text)
        assert [card[name].interactive for name in ("prune", "trial", "go")] == [ready] * 3


def test_without_weights_the_groups_come_from_the_config_and_nothing_can_be_launched(app, tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    bare = str(tmp_path / "bare")
    assert (
        groups_spec(app, bare).explore.config_only and groups_spec(app, "org/model-70b").explore.config_only
    )
    assert groups_spec(app, str(tmp_path / "bare" / "config.json")).explore.config_only
    card = structure_plan.shown(graph(), bare, "L01.ffn_channel=3")
    assert "There are no weights" in card["card"] and not card["prune"].interactive
    (tmp_path / "bare" / "model.safetensors").write_bytes(b"")
    assert not groups_spec(app, bare).explore.config_only
