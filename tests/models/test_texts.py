from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import DataError
from core.models.self_text import write
from core.models.texts import (
    Text,
    calibration_text,
    calibration_title,
    calibration_windows,
    consecutive_windows,
    evaluation_text,
    same_text,
    sample_windows,
)


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
    with pytest.raises(DataError, match=r"Unknown text 'wikitext9'\. Give 'bundled', a file that exists"):
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


def test_only_the_beginning_of_a_large_data_set_is_read(
    hub_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.models.rows._MOST_CHARACTERS", 2)
    assert calibration_text(f"{hub_folder}:default:train").text == "one"


def test_what_the_model_writes_is_seeded_full_and_without_special_tokens(
    tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    told: list[tuple[int, int]] = []

    def windows(seed: int, model: Any = tiny_llama, length: int = 10) -> tuple[torch.Tensor, Text]:
        return calibration_windows(
            model, tiny_tokenizer, "self", samples=18, length=length, seed=seed,
            on_progress=lambda *at: told.append(at),
        )  # fmt: skip

    first, text = windows(1)
    assert first.shape == (18, 10) and (first[:, 0] == 1).all() and (first[:, 1:] > 2).all()
    assert told[-1] == (180, 180) and text.name == "text the model wrote itself" and text.text
    count = len(told)
    assert windows(1)[0] is first and len(told) == count, "written once"
    assert torch.equal(write(tiny_llama, samples=18, length=10, seed=1), first)
    assert not torch.equal(windows(2)[0], first)
    with torch.no_grad():  # drawn from the model: its own text is likelier to it than random tokens
        scores = [
            tiny_llama(ids, labels=ids, use_cache=False).loss
            for ids in (first, torch.randint(3, 128, first.shape, generator=torch.Generator().manual_seed(0)))
        ]
    assert scores[0] < scores[1]
    with pytest.raises(DataError, match="at most 256"):
        windows(1, length=257)


def test_a_model_without_a_begin_token_begins_anywhere(tiny_llama: Any) -> None:
    tiny_llama.config.bos_token_id = None
    windows = write(tiny_llama, samples=20, length=3, seed=0)
    assert len(windows[:, 0].unique()) > 5 and (windows != 2).all() and (windows != 0).all()


def test_no_text_is_refused_where_one_is_needed(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    with pytest.raises(DataError, match="needed here, got 'none'"):
        calibration_windows(tiny_llama, tiny_tokenizer, "none", samples=2, length=8, seed=0)
    with pytest.raises(DataError, match=r"Unknown text 'self'.*bundled"):
        evaluation_text("self")
    assert calibration_title("none") == "no text"
