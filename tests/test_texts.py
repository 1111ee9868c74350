from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from core.errors import DataError
from core.texts import Text, calibration_text, consecutive_windows, evaluation_text, same_text, sample_windows


@pytest.fixture
def counted() -> Text:
    """A text whose token ids are 50, 51, 52, … under the tiny tokenizer."""
    return Text("counted", " ".join(f"w{i % 90}" for i in range(90)), "x")


def test_bundled_parts_are_large_and_disjoint_by_speech() -> None:
    calibration, evaluation = calibration_text("bundled"), evaluation_text("bundled")
    assert abs(len(evaluation.text.split()) - 199_590) < 500
    assert abs(len(calibration.text.split()) - 421_392) < 500
    paragraphs = {p for p in calibration.text.split("\n\n") if len(p.split()) > 60}
    assert len(paragraphs) > 1000
    assert not paragraphs & set(evaluation.text.split("\n\n"))
    assert not same_text(calibration, evaluation)


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
        ("a.jsonl", b'{"text": "ok"}\n{"words": "no"}', "row 2"),
        ("a.txt", b"\xff\xfe\x00", "UTF-8"),
        ("a.pdf", b"text", "cannot be read as text"),
    ],
)
def test_bad_files_are_refused_with_a_reason(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        evaluation_text(str(tmp_path / name))


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(DataError, match=r"Unknown text 'wikitext9'\. Give 'bundled' or a file that exists"):
        evaluation_text("wikitext9")


def test_sampled_windows_do_not_overlap_and_follow_the_seed(tiny_tokenizer, counted) -> None:  # type: ignore[no-untyped-def]
    windows = sample_windows(tiny_tokenizer, counted, samples=8, length=10, seed=3)
    assert windows.shape == (8, 10)
    assert windows.unique().numel() == 80, "a token is in two windows"
    assert (windows.diff(dim=1) == 1).all(), "a window is not one stretch of the text"
    assert torch.equal(windows, sample_windows(tiny_tokenizer, counted, samples=8, length=10, seed=3))
    assert not torch.equal(windows, sample_windows(tiny_tokenizer, counted, samples=8, length=10, seed=4))


def test_consecutive_windows_stop_where_the_text_does(tiny_tokenizer, counted) -> None:  # type: ignore[no-untyped-def]
    windows = consecutive_windows(tiny_tokenizer, counted, window=20, tokens=60)
    assert windows.shape == (3, 20)
    assert torch.equal(windows.flatten(), windows[0, 0] + torch.arange(60))
    assert consecutive_windows(tiny_tokenizer, counted, window=20, tokens=10_000).shape == (4, 20)


def test_short_texts_are_refused_with_the_numbers(tiny_tokenizer, counted) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="has 90 tokens, but 10 windows of 10 need 100"):
        sample_windows(tiny_tokenizer, counted, samples=10, length=10, seed=0)
    with pytest.raises(DataError, match="has 90 tokens, but one window is 91"):
        consecutive_windows(tiny_tokenizer, counted, window=91, tokens=91)


def test_windows_begin_as_the_tokenizer_begins_a_text(tiny_tokenizer, counted) -> None:  # type: ignore[no-untyped-def]
    import copy

    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", None, [("<s>", 1)])
    for windows in (
        sample_windows(tokenizer, counted, samples=3, length=10, seed=0),
        consecutive_windows(tokenizer, counted, window=10, tokens=30),
    ):
        assert windows.shape == (3, 10)
        assert (windows[:, 0] == tokenizer.bos_token_id).all()
        assert not (windows[:, 1:] == tokenizer.bos_token_id).any()


def test_real_samples_are_read(shared_data: Path) -> None:
    for name in ("c4_sample.jsonl", "alpaca_sample.jsonl", "wikitext2.valid.raw"):
        assert len(evaluation_text(str(shared_data / "text" / name)).text.split()) > 10_000
    row = json.loads((shared_data / "text" / "alpaca_sample.jsonl").read_text().splitlines()[0])
    assert row["output"] in evaluation_text(str(shared_data / "text" / "alpaca_sample.jsonl")).text
