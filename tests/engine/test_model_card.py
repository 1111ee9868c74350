from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from core.engine import model_card
from core.models import load as models
from core.models.card_head import read_head


def test_the_same_weights_have_the_same_fingerprint(tmp_path: Path, tiny_llama_folder: Path) -> None:
    shutil.copytree(tiny_llama_folder, tmp_path / "copy")
    first = model_card.fingerprint(tiny_llama_folder)
    assert first == model_card.fingerprint(tmp_path / "copy") is not None
    weights = tmp_path / "copy" / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert model_card.fingerprint(tmp_path / "copy") != first
    weights.unlink()
    assert model_card.fingerprint(tmp_path / "copy") is None


@pytest.mark.parametrize(
    ("readme", "wanted"),
    [
        ("---\ntags: [x]\nlicense: apache-2.0\n---\nWords.", "apache-2.0"),
        ("---\ntags: [x]\n---\nlicense: mit", None),
        ("license: mit", None),
        (None, None),
    ],
)
def test_the_licence_is_read_from_the_head_of_the_readme(
    tmp_path: Path, readme: str | None, wanted: str | None
) -> None:
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    assert read_head(tmp_path).get("license") == wanted


def test_names_of_other_families_are_translated(tmp_path: Path) -> None:
    from transformers import GPT2Config

    GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=64, n_positions=128).save_pretrained(tmp_path)
    card = model_card.describe_config(str(tmp_path))
    assert (card["num_hidden_layers"], card["hidden_size"], card["max_position_embeddings"]) == (2, 32, 128)
    assert (card["num_attention_heads"], card["num_key_value_heads"], card["head_dim"]) == (4, 4, 8)
    assert card["params"] == 64 * 32 + 128 * 32 + 2 * (12 * 32 * 32 + 13 * 32) + 2 * 32


def test_a_card_without_weights_agrees_with_one_with(tiny_llama_folder: Path) -> None:
    source = str(tiny_llama_folder)
    whole = model_card.describe(models.load(source, device="cpu"), source)
    alone = model_card.describe_config(source)
    assert {key: whole[key] for key in alone} == alone
    assert len(alone) > 12
