"""What is trained on: rows and windows, masked prompts, a part kept apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import DataError
from core.models.hub import hub_rows
from core.recover.examples import (
    IGNORED,
    Example,
    check_source,
    collate,
    examples,
    needed,
    read_source,
)
from core.spec.recover import RecoverSpec

ROWS = [
    {"instruction": "the a of", "input": "in it" if i % 2 else "", "output": f"w{i} to"} for i in range(20)
]


def written(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_only_answers_are_predicted(tmp_path: Path, tiny_tokenizer: Any) -> None:
    source = read_source(written(tmp_path / "alpaca.jsonl", ROWS))
    data = examples(tiny_tokenizer, source, length=80, held=4, seed=0)
    assert (len(data.train), len(data.held), data.template, data.dropped) == (18, 2, "alpaca", 0)
    for one in [*data.train, *data.held]:
        asked = one.labels.count(IGNORED)
        assert one.labels[:asked] == [IGNORED] * asked and one.labels[asked:] == one.ids[asked:]
        answer = tiny_tokenizer.decode(one.ids[asked:])
        assert answer.endswith("to </s>") and answer.startswith("w")
    answers = {tuple(one.ids) for one in data.train} & {tuple(one.ids) for one in data.held}
    assert not answers


def test_rows_whose_prompt_fills_the_length_are_left_out(tmp_path: Path, tiny_tokenizer: Any) -> None:
    long = [{"instruction": "the " * 100, "output": "a"}] * 3
    source = read_source(written(tmp_path / "alpaca.jsonl", [*ROWS, *long]))
    data = examples(tiny_tokenizer, source, length=80, held=4, seed=0)
    assert data.dropped == 3 and len(data.train) + len(data.held) == 20
    assert all(len(one.ids) <= 80 for one in data.train)


def test_the_models_own_template_is_used_where_it_has_one(tmp_path: Path, tiny_tokenizer: Any) -> None:
    import copy

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %} w9"
    source = read_source(written(tmp_path / "alpaca.jsonl", ROWS))
    data = examples(tokenizer, source, length=80, held=4, seed=0)
    assert data.template == "chat"
    prompt = tokenizer.decode(
        [i for i, j in zip(data.train[0].ids, data.train[0].labels, strict=True) if j < 0]
    )
    assert prompt.startswith("the a of") and prompt.endswith("w9")


def test_text_is_cut_into_windows_and_its_end_is_kept_apart(tmp_path: Path, tiny_tokenizer: Any) -> None:
    path = tmp_path / "text.txt"
    path.write_text(" ".join(f"w{i % 90}" for i in range(1000)))
    data = examples(tiny_tokenizer, read_source(str(path)), length=10, held=7, seed=3)
    assert (len(data.train), len(data.held), data.template) == (93, 7, "none")
    flat = [token for one in [*data.train, *data.held] for token in one.ids]
    assert flat == tiny_tokenizer(path.read_text())["input_ids"]
    assert all(one.ids == one.labels for one in data.train)


def test_batches_are_padded_on_the_right_and_padding_is_not_predicted() -> None:
    batch = collate([Example([5, 6, 7], [IGNORED, 6, 7]), Example([8], [8])], padding=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [8, IGNORED, IGNORED]]


def test_what_cannot_be_read_is_said(
    tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="is no file or folder here, and the hub cannot be reached"):
        read_source("nobody/nothing")
    with pytest.raises(DataError, match="file that exists"):
        read_source(str(tmp_path / "no.jsonl"))
    with pytest.raises(DataError, match="row 1 has no column with its text; it has question"):
        read_source(written(tmp_path / "odd.jsonl", [{"question": "a"}]))
    few = read_source(written(tmp_path / "few.jsonl", ROWS[:5]))
    with pytest.raises(DataError, match="at least 10"):
        examples(tiny_tokenizer, few, length=80, held=4, seed=0)


def in_the_hubs_layout(folder: Path, rows: list[Any]) -> str:
    """A data set as a folder of the hub."""
    (folder / "data").mkdir(parents=True)
    written(folder / "data" / "train.jsonl", rows)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
        "    path: data/train.jsonl\n---\n"
    )
    return str(folder)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The rows that were taken from data sets of the hub."""
    rows: list[Any] = []

    def watched(*name: str) -> Any:
        for row in hub_rows(*name):
            rows.append(row)
            yield row

    monkeypatch.setattr("core.models.data_sets.hub_rows", watched)
    return rows


def test_of_a_data_set_no_more_is_read_than_a_training_needs(tmp_path: Path, read: list[Any]) -> None:
    name = in_the_hubs_layout(tmp_path / "alpaca", ROWS * 3)
    check_source(name)
    assert len(read) <= 2  # the first, and whether another follows
    read.clear()
    few = RecoverSpec("lora", steps=4, batch=2, micro_batch=1, held=2)
    source = read_source(name, needed(few), few.length)
    assert (needed(few), len(source.rows), source.first, len(read)) == (20, 20, 20, 21)
    assert source.rows == read_source(written(tmp_path / "same.jsonl", ROWS)).rows
    assert needed(replace(few, steps=100)) == 202 and needed(replace(few, steps=None)) is None
    whole = read_source(name)
    assert (len(whole.rows), whole.first, whole.name) == (60, 0, name)


def test_of_a_long_text_the_beginning_is_read(tmp_path: Path, tiny_tokenizer: Any, read: list[Any]) -> None:
    name = in_the_hubs_layout(tmp_path / "texts", [{"text": "the a of in " * 10}] * 200)
    data = examples(tiny_tokenizer, source := read_source(name, 20, 8), length=8, held=2, seed=0)
    assert len(read) < 20 and source.first == len(read) - 1
    assert len(data.train) + len(data.held) >= 20
    assert read_source(f"{name}:default:train", 10**5, 8).first == 0
    with pytest.raises(DataError, match="row 1 has no column with its text; it has question"):
        check_source(in_the_hubs_layout(tmp_path / "odd", [{"question": "a"}] * 3))
