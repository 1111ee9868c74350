from __future__ import annotations

import copy
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from core.errors import DataError
from core.models.texts import (
    calibration_text,
    evaluation_text,
    same_text,
)
from core.models.windows import consecutive_windows


def test_bundled_parts_are_large_and_disjoint_by_speech() -> None:
    calibration, evaluation = calibration_text("bundled"), evaluation_text("bundled")
    assert abs(len(evaluation.text.split()) - 199_590) < 500
    assert abs(len(calibration.text.split()) - 421_392) < 500
    paragraphs = {p for p in calibration.text.split("\n\n") if len(p.split()) > 60}
    assert len(paragraphs) > 1000
    assert not paragraphs & set(evaluation.text.split("\n\n"))
    assert not same_text(calibration, evaluation)


def test_the_factbooks_parts_are_prose_and_disjoint_by_country_and_of_another_domain() -> None:
    """Enough for the default 4,096 tokens several times over, and nothing that calibrates by default."""
    calibration, evaluation = calibration_text("factbook"), evaluation_text("factbook")
    assert abs(len(evaluation.text.split()) - 23_800) < 1500
    paragraphs = set(evaluation.text.split("\n\n"))
    assert not paragraphs & set(calibration.text.split("\n\n")) and not same_text(calibration, evaluation)
    assert not paragraphs & set(calibration_text().text.split("\n\n"))
    assert all(len(p.split()) >= 5 for p in paragraphs), "no headings, no numbers alone"
    assert not re.search(r"<\w|&\w+;|\s{3}", evaluation.text) and evaluation.name.startswith("World Factbook")


def test_the_mixed_text_is_half_facts_half_speeches_and_in_parts_too() -> None:
    facts, mixed = calibration_text("factbook").text, calibration_text("mixed").text
    assert mixed.startswith(facts)
    speeches = mixed.removeprefix(facts)
    assert 0.7 < len(speeches) / len(facts) < 1.4
    spoken = [part for part in speeches.split("\n\n") if part]
    assert set(spoken) <= set(calibration_text("bundled").text.split("\n\n"))
    assert not {part for part in mixed.split("\n\n") if len(part) > 40} & set(
        evaluation_text("mixed").text.split("\n\n")
    )


def test_bundled_text_has_no_stage_directions_or_speaker_tags() -> None:
    for text in (calibration_text("bundled").text, evaluation_text("bundled").text):
        for mark in ("[Laughter]", "[Applause]", "[applause]", "\nThe President. ", "\nAudience members. "):
            assert mark not in text


def test_the_same_file_for_both_parts_is_noticed(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.txt", tmp_path / "part.md"
    whole.write_text("one two three four")
    part.write_text("two three")
    assert same_text(calibration_text(str(whole)), evaluation_text(str(whole)))
    assert same_text(calibration_text(str(whole)), evaluation_text(str(part)))
    assert same_text(calibration_text(str(part)), evaluation_text(str(whole)))


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("a.txt", "plain words", "plain words"),
        ("a.raw", "plain words", "plain words"),
        ("a.jsonl", '{"text": "one"}\n\n{"text": "two"}\n', "one\n\ntwo"),
        ("a.json", '[{"text": "one"}, "two"]', "one\n\ntwo"),
        ("a.jsonl", '{"instruction": "Add.", "input": "1 1", "output": "2"}', "Add.\n1 1\n2"),
        ("a.jsonl", '{"instruction": "Say hi.", "input": "", "output": "Hi."}', "Say hi.\nHi."),
    ],
)
def test_files_are_read(tmp_path: Path, name: str, content: str, wanted: str) -> None:
    (tmp_path / name).write_text(content)
    text = calibration_text(str(tmp_path / name))
    assert (text.name, text.text, len(text.sha256)) == (name, wanted, 64)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"  \n", "is empty"),
        ("a.jsonl", b"{broken", "not valid JSON"),
        ("a.json", b'{"text": "no list"}', "a list of rows"),
        ("a.jsonl", b'{"text": "one"}\n\n{"text": ', "not valid JSON: line 3"),
        ("a.json", b'[{"text": "one"},\n{"text"]', "not valid JSON: line 2"),
        ("a.txt", b"", r"is empty \(0 bytes\)"),
        ("a.jsonl", b'{"title": "x", "body": "y"}', "row 1 has no column with its text; it has title, body"),
        ("a.csv", b"title,body\nx,y", "row 1 has no column with its text; it has title, body"),
        ("a.parquet", b"no parquet", "cannot be read as .parquet"),
        ("a.txt.gz", b"no gzip", "cannot be read: Not a gzipped file"),
        ("a.jsonl", b'{"text": "ok"}\n{"words": "no"}', "row 2"),
        ("a.txt", b"\xff\x00", "UTF-8"),
        ("a.pdf", b"text", "cannot be read as text"),
    ],
)
def test_bad_files_are_refused_with_a_reason(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        evaluation_text(str(tmp_path / name))


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "one\n\ntwo"),
        ("a.csv", 'number,text\n1,one\n2,"two"'),
        ("a.tsv", "number\ttext\n1\tone\n2\ttwo"),
        ("a.jsonl", '{"text": "one"}\n{"text": "two"}'),
        ("a.json", '{"text": "one"}\n{"text": "two"}'),
        ("a.json", '{"data": [{"content": "one"}, {"content": "two"}]}'),
    ],
)
def test_files_are_read_packed_and_with_a_mark(tmp_path: Path, name: str, content: str, ending: str) -> None:
    """Compressed, and as Windows writes them, with a byte order mark."""
    opened: Any = gzip.open if ending else open
    with opened(tmp_path / (name + ending), "wb") as file:
        file.write(content.encode("utf-8-sig"))
    assert calibration_text(str(tmp_path / (name + ending))).text == "one\n\ntwo"


def test_a_lone_parquet_file_and_a_column_by_name_are_read(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_dict({"body": ["one", "two"], "n": [1, 2]}).to_parquet(str(tmp_path / "a.parquet"))
    assert calibration_text(f"{tmp_path}/a.parquet:::body").text == "one\n\ntwo"
    with pytest.raises(DataError, match="has no column 'text'; it has body, n"):
        calibration_text(f"{tmp_path}/a.parquet:::text")
    (tmp_path / "utf16.txt").write_bytes("wörter".encode("utf-16"))
    assert calibration_text(str(tmp_path / "utf16.txt")).text == "wörter"


MESSAGES = [{"role": "user", "content": "the a"}, {"role": "assistant", "content": "of in"}]
PARTS = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "the a"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "of in"}]},
]
SHARED = [{"from": "human", "value": "the a"}, {"from": "gpt", "value": "of in"}]


@pytest.mark.parametrize("row", [{"messages": MESSAGES}, {"messages": PARTS}, {"conversations": SHARED}])
def test_conversations_are_read_plainly_or_by_the_template(
    tmp_path: Path, tiny_tokenizer: Any, row: dict[str, Any]
) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join([json.dumps(row)] * 3))
    text = calibration_text(str(path))
    assert text.text == "\n\n".join(["the a\nof in"] * 3) and text.chats == (tuple(MESSAGES),) * 3
    plain = consecutive_windows(tiny_tokenizer, text, window=4)
    assert tiny_tokenizer.decode(plain[0]) == "the a of in"
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ 'to' if m.role == 'user' else 'for' }} {{ m.content }} {% endfor %}"
    )
    windows = consecutive_windows(tokenizer, text, window=6)
    assert windows.shape == (3, 6) and tokenizer.decode(windows[0]) == "to the a for of in"
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match=r"conversation 1: the tokenizer's chat template refuses it \(roles"):
        consecutive_windows(copy.deepcopy(tokenizer), text, window=6)


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(DataError, match=r"Unknown text 'wikitext9'\..*, 'mixed', a named"):
        evaluation_text("wikitext9")
    with pytest.raises(DataError, match="Did you mean 'wikitext2'"):
        evaluation_text("WikiText2")
    with pytest.raises(DataError, match="source:config:split:column"):
        evaluation_text("a:b:c:d:e")


def test_real_samples_are_read(shared_data: Path) -> None:
    for name in ("c4_sample.jsonl", "alpaca_sample.jsonl", "wikitext2.valid.raw"):
        assert len(evaluation_text(str(shared_data / "text" / name)).text.split()) > 10_000
    row = json.loads((shared_data / "text" / "alpaca_sample.jsonl").read_text().splitlines()[0])
    assert row["output"] in evaluation_text(str(shared_data / "text" / "alpaca_sample.jsonl")).text


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    """A data set in the hub's layout: a card that names two configs, and their files."""
    folder = tmp_path / "speeches"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/a.jsonl\n"
        "- config_name: small\n  data_files:\n  - split: validation\n    path: data/b.jsonl\n"
        "  - split: test\n    path: data/a.jsonl\n---\n"
    )
    for name, words in (("a", ["one", "two"]), ("b", ["three"])):
        rows = [json.dumps({"text": word}) for word in words]
        (folder / "data" / f"{name}.jsonl").write_text("\n".join(rows))
    return folder


def test_a_data_set_in_the_hubs_layout_is_read(hub_folder: Path) -> None:
    assert calibration_text(str(hub_folder)).text == "one\n\ntwo"
    assert evaluation_text(f"{hub_folder}:small").text == "three"  # no train: the first split
    text = calibration_text(f"{hub_folder}:small:test")
    assert (text.text, text.name, len(text.sha256)) == ("one\n\ntwo", f"{hub_folder}:small:test", 64)
    for wrong in (":none", ":small:train"):
        with pytest.raises(DataError, match="owner/name:config:split"):
            calibration_text(f"{hub_folder}{wrong}")


def test_of_a_data_set_as_much_is_read_as_is_asked_for(
    hub_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.models.texts._LEAST_CHARACTERS", 2)
    monkeypatch.setattr("core.models.texts.CHARACTERS", 1)
    name = f"{hub_folder}:default:train"
    text = calibration_text(name, tokens=3)
    assert (text.text, text.first) == ("one", 1)
    text = calibration_text(name, tokens=5)
    assert (text.text, text.first) == ("one\n\ntwo", 0)
    assert calibration_text(name).text == "one\n\ntwo", "the whole of it"
    monkeypatch.setattr("core.models.texts._MOST_CHARACTERS", 3)
    with pytest.raises(DataError, match="has more than 3 characters, too many to read whole; say how many"):
        evaluation_text(name)
