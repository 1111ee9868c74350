"""What the Scores tab shows of a run, and what its button asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import ArtifactError
from core.results.activations import Activation, Activations, write_activations
from core.results.scores import write_scores
from core.spec.explore import ExploreSpec
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from pruneviz.tabs import scores
from pruneviz.tabs.scores_activations import NOTHING, show_activations
from tests.pruneviz.samples import graph, make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An exploring run with two criteria, one of them hostile by name."""
    spec = RunSpec(goal="explore", explore=ExploreSpec(criteria=("l2", "<b>")))
    path = make_run(tmp_path, "a", spec, with_graph=True)
    rng = np.random.default_rng(0)
    ids = [(g.id, g.units) for g in graph().groups]
    write_scores(path, {name: {one: rng.random(n, np.float32) for one, n in ids} for name in ("l2", "<b>")})
    return path


def shown(run: Path, *given: str) -> dict[str, Any]:
    return scores.show(run, *given)


def test_it_opens_with_the_first_criterion_and_kind(run: Path) -> None:
    page = shown(run, "", "", "", "", "Whole model", "Lowest first")
    assert page["criterion"].value == "l2" and page["versus"].value == "<b>"
    assert page["kind"].choices[0][0] == page["kind"].value == "Feed-forward channels"
    assert json.loads(page["scatter"])["layer"] is None


def test_the_address_chooses(run: Path) -> None:
    page = shown(run, "<b>", "l2", "query_head", "1", "Each layer", "By number")
    assert page["kind"].value == "Query heads" and page["layer"].value == "1"
    assert "<b>" not in page["about"] and "&lt;b&gt;" in page["about"]
    assert [g["id"] for g in json.loads(page["scatter"])["groups"]] == ["L01.query_head"]


def test_of_too_many_units_one_layer_is_drawn_at_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "MOST_POINTS", 23)  # two layers of 12 channels
    page = shown(run, "", "", "", "", "Whole model", "Lowest first")
    assert page["layer"].value == "0" and scores.ALL not in [value for _, value in page["layer"].choices]
    assert [group["id"] for group in json.loads(page["scatter"])["groups"]] == ["L00.ffn_channel"]
    heads = shown(run, "", "", "query_head", "", "Whole model", "Lowest first")
    assert heads["layer"].value == scores.ALL


def test_a_single_criterion_is_drawn_by_layer_and_not_against_itself(run: Path) -> None:
    rng = np.random.default_rng(0)
    write_scores(run, {"l2": {each.id: rng.random(each.units, np.float32) for each in graph().groups}})
    page = shown(run, "l2", "l2", "", "", "Whole model", "Lowest first")
    drawn = json.loads(page["scatter"])
    assert (drawn["x"]["name"], drawn["y"]["name"]) == ("l2", "layer")
    assert {group["layer"] for group in drawn["groups"]} == {0, 1}
    assert page["versus"].visible is page["agreement"].visible is False
    assert "a second one" in page["agree"] and "rank correlation" not in page["agree"]


def test_what_does_not_exist_falls_back(run: Path) -> None:
    page = shown(run, "nothing", "nothing", "expert", "99", "", "")
    assert page["criterion"].value == "l2" and page["layer"].value == scores.ALL


def test_scores_of_another_model_are_said(run: Path) -> None:
    write_scores(run, {"l2": {"elsewhere": np.ones(3, np.float32)}})
    with pytest.raises(ArtifactError, match="score its units again"):
        shown(run, "", "", "", "", "", "")


def test_a_criterion_is_explained_with_its_equation_and_paper(run: Path) -> None:
    words = scores.explained_html("l2", run)
    parts = ("The length of all weights", "sqrt(sum w^2)", "LLM-Pruner", "needs no text")
    assert all(part in words for part in parts)
    assert "16 windows of 256 tokens" in scores.explained_html("taylor", run)


def test_features_are_shown_beside_those_of_another_run(run: Path, tmp_path: Path) -> None:
    nothing = show_activations(tmp_path, run, "")
    assert NOTHING in str(nothing["about"]) and nothing["chart"].constructor_args["visible"] is False
    points = (Activation(0, "ffn", 1.0, 2.0, 3.0), Activation(1, "ffn", 2.0, 3.0, 4.0))
    write_activations(run, Activations(points, 64, "a <b> text"))
    alone = show_activations(tmp_path, run, "nowhere")
    assert "a &lt;b&gt; text" in alone["about"] and alone["beside"].constructor_args["visible"] is False
    other = make_run(tmp_path, "b", RunSpec(goal="explore", model=ModelSpec("other")), with_graph=True)
    write_activations(other, Activations(points, 32, "t"))
    page = show_activations(tmp_path, run, "b")
    assert page["beside"].constructor_args["choices"] == [("No other model", ""), ("other · b", "b")]
    drawn = json.loads(page["chart"].constructor_args["value"])
    assert [trace["name"] for trace in drawn["data"]] == [
        "demo: what the feed-forward reads", "other: what the feed-forward reads",
    ]  # fmt: skip
