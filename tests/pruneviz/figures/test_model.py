from __future__ import annotations

from math import prod

import pytest

from core.results.sensitivity import SENSITIVITY
from core.runs.artifacts import GROUPS
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from pruneviz.data import runs
from pruneviz.data.cards import Card
from pruneviz.figures.model import (
    analyses_html,
    analyses_info,
    card_facts,
    card_html,
    parts_html,
    parts_info,
)
from tests.pruneviz.samples import FFN, HIDDEN, LAYERS, VOCAB, graph, make_run


def test_every_parameter_is_counted_once():
    info = parts_info(graph())
    assert info.total == sum(prod(p.shape) for p in graph().parameters.values())
    assert sum(info.shares.values()) == pytest.approx(1)
    assert info.params["ffn"] == LAYERS * 2 * FFN * HIDDEN
    assert info.params["embedding"] == VOCAB * HIDDEN
    assert info.params["other"] == LAYERS * HIDDEN


def test_the_drawing_says_its_numbers():
    assert "Feed-forward channels" in parts_html(parts_info(graph()))


def test_unknown_facts_are_left_out():
    facts = dict(card_facts(Card("x", "x", layers=2, heads=4, kv_heads=2, head_dim=8)))
    assert facts["Attention heads"] == "4 query, 2 key-value × 8"
    assert "Vocabulary" not in facts and "Licence" not in facts


def test_names_are_escaped():
    assert "<img" not in card_html(Card("x", "<img src=x onerror=alert(1)>"))


def test_the_newest_of_each_kind_is_named_with_its_run(tmp_path):
    make_run(tmp_path, "old", created=1.0, with_graph=True)
    make_run(tmp_path, "new", created=2.0, with_graph=True)
    make_run(tmp_path, "other", RunSpec(model=ModelSpec("someone/else")), created=3.0, with_graph=True)
    found = {a.artifact: a for a in analyses_info(runs.list_runs(tmp_path), "demo")}
    assert found[GROUPS].run == "new" and found[SENSITIVITY].run == ""
    text = analyses_html(list(found.values()))
    assert 'data-run="new"' in text and text.count("not yet") == 3
