"""Data sets by name: from a folder with copies, from the cache, and what is said where nothing answers."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from core.errors import DataError
from core.models import hub
from core.models.data_sets import DATA_DIR
from core.models.texts import calibration_text, evaluation_text, title_of
from core.recover.examples import read_source
from core.spec.calibration import DataSpec
from core.spec.recover import PRESETS
from core.spec.texts import (
    CALIBRATE_ON,
    IN_PARTS,
    MEASURE_ON,
    NAMED,
    NONE,
    SELF,
    TRAIN_ON,
    data_name,
    reads_the_same,
)


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """A folder with a copy of every named data set, each in another way that people have them."""
    rows = {
        "c4/en/c4-train.00000-of-01024.json.gz": [{"text": "one", "url": "u"}, {"text": "two", "url": "u"}],
        "c4/en/c4-validation.00000-of-00008.json.gz": [{"text": "three", "url": "u"}] * 2,
        "alpaca.jsonl": [{"instruction": "Add.", "input": "1 1", "output": "2"}] * 20,
        "MBZUAI/LaMini-instruction/data/train-00000.jsonl": [{"instruction": "Hi", "response": "Ho"}] * 20,
        "bookcorpus/train.jsonl": [{"text": "a book"}],
    }
    for name, lines in rows.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        written: Any = gzip.open if path.suffix == ".gz" else open
        with written(path, "wt") as file:
            file.write("\n".join(map(json.dumps, lines)))
    for name, text in {
        "wikitext2/wiki.test.raw": " \n = Title = \n \n A line . \n",
        "wikitext2/wiki.train.raw": " \n = Train = \n",
        "ptb/ptb.valid.txt": " no it was n't black monday \n but while \n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "read", "wanted"),
    [
        ("c4", calibration_text, "one\n\ntwo"),
        ("c4", evaluation_text, "three\n\nthree"),
        ("c4:en:train", evaluation_text, "one\n\ntwo"),
        ("c4::train:url", calibration_text, "u\n\nu"),
        ("bookcorpus", calibration_text, "a book"),
        ("alpaca", calibration_text, "\n\n".join(["Add.\n1 1\n2"] * 20)),
        ("lamini", calibration_text, "\n\n".join(["Hi\nHo"] * 20)),
        # As the hub has the rows: with their line ends, and an empty line as an empty row.
        ("wikitext2", evaluation_text, "\n\n = Title = \n\n\n\n\n A line . \n"),
        ("ptb", evaluation_text, "no it was n't black monday\n\nbut while"),
    ],
)
def test_a_named_data_set_is_read_from_a_folder(copies: Path, name: str, read: Any, wanted: str) -> None:
    assert read(name, folder=str(copies)).text == wanted


def test_a_split_that_a_folder_lacks_is_said(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"ptb has no split 'train', it has validation; put train\.jsonl"):
        calibration_text("ptb", folder=str(copies))
    with pytest.raises(DataError, match=r"There is no folder /nowhere with data sets; leave --data-dir out"):
        calibration_text("c4", folder="/nowhere")
    monkeypatch.setenv(DATA_DIR, str(copies))
    assert calibration_text("c4").name == title_of("c4") == "C4 (train)"


@pytest.mark.usefixtures("offline")
def test_a_hub_that_cannot_be_reached_is_said_within_seconds(
    copies: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "empty")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    began = time.monotonic()
    with pytest.raises(DataError, match=r"WikiText-2 cannot be read: the hub cannot be .* --data-dir FOLDER"):
        evaluation_text("wikitext2")
    with pytest.raises(
        DataError, match=r"'some/set' is no file or folder here, and the hub cannot be reached"
    ):
        evaluation_text("some/set")
    assert time.monotonic() - began < 20, "and not after half a minute of trying again"
    source = read_source(PRESETS["paper"].data, 20, 16)
    assert source.text is not None and source.name.startswith("State of the Union")
    assert source.instead.startswith(
        "State of the Union since 1946, calibration part is read instead of alpaca:"
    )
    instead = read_source("alpaca,bundled", 20, 16, str(copies))
    assert (instead.name, len(instead.rows), instead.instead) == ("Alpaca (cleaned) (train)", 20, "")
    with pytest.raises(DataError, match="Alpaca"):
        read_source("alpaca", 20, 16)


@pytest.mark.usefixtures("offline")
def test_what_the_cache_has_is_read_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that `hf download` left."""
    snapshot = tmp_path / "hub" / "datasets--some--set" / "snapshots" / "0123"
    (snapshot / "data").mkdir(parents=True)
    (snapshot / "data" / "test.jsonl").write_text(json.dumps({"text": "cached"}))
    (refs := snapshot.parents[1] / "refs").mkdir()
    (refs / "main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert evaluation_text("some/set").text == "cached"


def test_instructions_of_both_kinds_and_conversations_are_learned(copies: Path, tmp_path: Path) -> None:
    lamini = read_source("lamini", folder=str(copies))
    assert lamini.rows[0] == {"instruction": "Hi", "input": "", "output": "Ho"}
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "bye")]
    messages = [{"role": role, "content": said} for role, said in turns]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": messages}))
    (row,) = read_source(str(tmp_path / "chats.jsonl")).rows
    assert row == {"instruction": "a\n\nb\n\nc", "input": "", "output": "d"}


def test_a_name_is_the_same_text_for_both_where_it_has_one_split() -> None:
    assert [reads_the_same(name) for name in ("alpaca", "c4::train", "a.txt", "owner/name")] == [True] * 4
    assert [reads_the_same(name) for name in ("c4", "wikitext2", "bundled", "factbook")] == [False] * 4


def test_the_table_of_names_is_whole() -> None:
    offered = {*CALIBRATE_ON, *TRAIN_ON, *MEASURE_ON} - {*IN_PARTS, SELF, NONE}
    assert offered <= set(NAMED), "what the form offers has an entry"
    for name, data in NAMED.items():
        assert data.licence and data.used and data_name(name).named is data
        assert "{split}" in data.files or not data.files
    assert DataSpec("c4").name == "c4" and hub.PATIENCE < 10
