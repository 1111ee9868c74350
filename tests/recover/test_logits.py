"""What is kept of a teacher on disk: the same as it says, shared by sequence, and of nobody else."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.errors import ArtifactError, DataError, StorageError
from core.recover.examples import IGNORED, Example
from core.recover.logits import About, Kept, hash_of
from tests.conftest import llama_config, random_model

ABOUT = About("dense", "a" * 64, "C4", "b" * 64, 5, 2.0)
ROWS = [Example([3, 9, 17, 4, 5], [IGNORED, IGNORED, 17, 4, 5]), Example([8, 2, 6], [8, 2, 6])]


def quiet(done: int, total: int) -> None:
    """Nobody is told."""


def test_what_is_kept_is_what_the_teacher_says(tmp_path: Path) -> None:
    model = random_model(llama_config())
    kept = Kept(tmp_path, ABOUT)
    assert kept.missing(ROWS) == ROWS
    kept.add(model, ROWS, 0, quiet)
    again = Kept(tmp_path)
    assert again.missing(ROWS) == [] and again.about == ABOUT
    values, tops = again.of(ROWS[::-1])
    wanted = []
    for row in ROWS[::-1]:
        said = (model(torch.tensor([row.ids])).logits[0] / 2.0).log_softmax(-1)
        wanted += [said[at] for at in range(len(row.ids) - 1) if row.labels[at + 1] != IGNORED]
    best, where = torch.stack(wanted).topk(5)
    assert values.shape == (5, 5) and torch.equal(tops, where)
    assert torch.allclose(values.float(), best, atol=2e-3)


def test_only_what_is_missing_is_read_again(tmp_path: Path) -> None:
    model, steps = random_model(llama_config()), list[int]()
    Kept(tmp_path, ABOUT).add(model, ROWS[:1], 0, quiet)
    kept = Kept(tmp_path, ABOUT)
    assert kept.missing(ROWS) == ROWS[1:]
    kept.add(model, ROWS[1:], 0, lambda done, total: steps.append(total))
    assert steps == [1] and len(Kept(tmp_path).of(ROWS)[0]) == 5


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"model": "another"}, r"what another \(aaaaaaaa\) says of C4 \(bbbbbbbb\), 5 tokens"),
        ({"text": "Alpaca", "text_sha256": "c" * 64}, r"says of Alpaca \(cccccccc\)"),
        ({"model_sha256": "d" * 64}, r"\(dddddddd\).*under the same name"),
        ({"top_k": 9}, "9 tokens at temperature 2"),
    ],
)
def test_logits_of_another_model_or_text_are_refused_by_name(
    tmp_path: Path, other: dict[str, str], said: str
) -> None:
    Kept(tmp_path, ABOUT).add(random_model(llama_config()), ROWS, 0, quiet)
    with pytest.raises(DataError, match=said):
        Kept(tmp_path, replace(ABOUT, **other))  # type: ignore[arg-type]


def test_a_disk_too_small_is_said_with_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(100, 99, 1))
    with pytest.raises(StorageError, match=r"take 0\.00 GiB in .* 0\.00 GiB are free; take fewer steps"):
        Kept(tmp_path, ABOUT).add(random_model(llama_config()), ROWS, 0, quiet)
    assert not list(tmp_path.iterdir())


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    Kept(tmp_path, ABOUT).add(random_model(llama_config()), ROWS, 0, quiet)
    (tmp_path / "part-00000.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ArtifactError, match="part-00000"):
        Kept(tmp_path, ABOUT)
    shutil.rmtree(tmp_path)


def test_a_model_that_was_trained_on_has_another_hash() -> None:
    model = random_model(llama_config())
    before = hash_of(model)
    assert hash_of(model) == before
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    assert hash_of(model) != before
