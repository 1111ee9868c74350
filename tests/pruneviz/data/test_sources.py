"""Which models are offered, and what their config says of them before anything is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from pruneviz.data.cards import Card, read_card
from pruneviz.data.runs import list_runs
from pruneviz.data.sources import cached, model_choices
from pruneviz.figures.model import card_html, memory_words
from tests.pruneviz.samples import MEASURED, make_run

LLAMA = {"model_type": "llama", "hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2}


def in_cache(cache: Path, name: str, config: bool = True) -> None:
    repo = cache / f"models--{name.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("c0ffee")
    (repo / "snapshots" / "c0ffee").mkdir(parents=True)
    if config:
        (repo / "snapshots" / "c0ffee" / "config.json").write_text("{}")


def folder(path: Path, **config: Any) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**LLAMA, **config}))
    return path


def test_the_demo_recent_models_runs_and_the_cache_are_offered_once(tmp_path: Path) -> None:
    asked = RunSpec(goal="explore", model=ModelSpec("org/b"))
    make_run(tmp_path / "runs", "old", RunSpec(goal="explore", model=ModelSpec("org/a")), created=1.0)
    make_run(tmp_path / "runs", "new", asked, created=2.0)
    run = make_run(tmp_path / "runs", "pruned", metrics=MEASURED, created=3.0)
    for name in ("org/a", "org/c"):
        in_cache(tmp_path / "hub", name)
    in_cache(tmp_path / "hub", "org/empty", config=False)
    choices = model_choices(list_runs(tmp_path / "runs"), tmp_path / "hub")
    assert [source for _, source in choices] == ["demo", "org/b", "org/a", str(run), "org/c"]
    assert [label.partition(":")[0] for label, _ in choices] == [
        "demo", "Recent", "Recent", "Left by a run", "In the hub’s cache",
    ]  # fmt: skip


def test_without_runs_and_cache_there_is_the_demo(tmp_path: Path) -> None:
    assert model_choices([], tmp_path / "none") == [("demo", "demo")] and not list(cached(tmp_path))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, ""),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised weights (gptq)"),
        ({"num_key_value_heads": 3}, "4 query heads and 3 key-value heads"),
        ({"is_encoder_decoder": True}, "encoder with a decoder"),
    ],
)
def test_the_card_says_why_a_model_cannot_be_pruned(tmp_path: Path, config: Any, reason: str) -> None:
    card = read_card(str(folder(tmp_path / "m", **config)))
    assert card and (reason in card.refusal) and bool(card.refusal) == bool(reason)
    assert reason in card_html(card)


def test_the_memory_needed_stands_against_the_memory_there() -> None:
    card = Card("m", "m", params=10**9)
    assert "3.73 GiB" in memory_words(card, 8 * 2**30) and "8 GiB" in memory_words(card, 8 * 2**30)
    assert "more than is free" in memory_words(card, 2**30)
    assert "more than is free" not in memory_words(card, 8 * 2**30)


def test_of_a_config_alone_it_is_said_that_no_weights_are_here() -> None:
    card = Card("m", "m", bare=True)
    assert "No weights are here" in memory_words(card, 8 * 2**30) and "GiB" not in memory_words(card, 2**33)
    counted = memory_words(replace(card, params=10**9), 8 * 2**30)
    assert "No weights are here" in counted and "3.73 GiB" in counted and "8 GiB" in counted
    assert "Weights are read when" not in counted


def test_a_card_is_made_without_torch(tmp_path: Path) -> None:
    code = "import sys; from pruneviz.data.cards import read_card; read_card(sys.argv[1]); "
    code += "assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(folder(tmp_path / "m"))], check=True)
