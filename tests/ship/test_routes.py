"""What each format can hold, from paper alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import ArtifactError, SpecError
from core.graph.discover import discover_config
from core.plan.records import PruningPlan
from core.ship.records import Subject, Verdict, subject_of
from core.ship.routes import ROUTES, require, verdicts
from core.spec.export import FORMATS
from tests.conftest import llama_config


@pytest.fixture(scope="module")
def subject() -> Subject:
    config = llama_config()
    plan = PruningPlan({"L00.query_head": (1,), "L01.ffn_channel": (0, 5, 7)})
    return Subject(discover_config(config, name="tiny"), plan, config.to_dict())


def test_a_subject_counts_what_is_left_of_every_layer(subject: Subject) -> None:
    first, second = subject.layers
    assert (first.heads.query, first.heads.key_value, first.heads.kv_index) == ([0, 2, 3], [0, 1], [0, 1, 1])
    assert (second.heads.query, second.heads.kv_index) == ([0, 1, 2, 3], [0, 0, 1, 1])
    assert (first.ffn, second.ffn, subject.family) == ((48,), (45,), "llama")


def test_a_folder_that_lacks_a_file_is_named_with_it(tmp_path: Path) -> None:
    (tmp_path / "plan.json").touch()
    with pytest.raises(ArtifactError, match=r"test_a_folder.* lacks groups\.json, .*run the pruning again"):
        subject_of(tmp_path)


def test_every_format_that_a_spec_offers_has_a_route_with_a_verdict_in_words(subject: Subject) -> None:
    assert set(FORMATS) <= set(ROUTES)
    assert all(verdict.reason.endswith(".") for verdict in verdicts(subject).values())


def test_a_closed_route_says_which_are_open(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = replace(ROUTES["gguf"], verdict=lambda _: Verdict(False, "it has no such shape."))
    monkeypatch.setitem(ROUTES, "gguf", closed)
    with pytest.raises(SpecError, match=r"llama.cpp cannot hold .*: it has no such shape\. .*: hf"):
        require("gguf", subject)
