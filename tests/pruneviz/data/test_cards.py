from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from core.errors import ModelError
from core.models import early
from pruneviz.data import cards

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 32,
    "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128,
    "max_position_embeddings": 256, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file(
        {"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float16)}, tmp_path / "model.safetensors"
    )
    return tmp_path


def test_a_folder_is_described_without_reading_weights(folder):
    card = cards.read_card(str(folder))
    assert card is not None
    assert (card.layers, card.hidden, card.ffn, card.heads, card.kv_heads) == (2, 32, 48, 4, 2)
    assert card.head_dim == 8 and card.params == 17 and card.stored_dtype == "F16, F32"
    assert card.tied is True and card.chat_template is False


def test_older_configs_use_other_names():
    config = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024}
    card = cards.card_from_config("gpt2", "gpt2", config)
    assert (card.layers, card.hidden, card.heads, card.kv_heads, card.context) == (12, 768, 12, 12, 1024)
    assert card.head_dim == 64 and card.ffn is None


def test_what_only_the_engine_can_tell_is_none(tmp_path):
    assert cards.read_card("someone/some-model") is None
    assert cards.read_card(str(tmp_path)) is None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_files_are_named(folder, name):
    (folder / name).write_bytes(b"{ not")
    with pytest.raises(ModelError, match=name):
        cards.read_card(str(folder))


@pytest.mark.parametrize(
    "text", ["[]", "3", "null", '"x"', '{"architectures": 5}', '{"architectures": {"a": 1}}']
)
def test_a_config_of_another_kind_is_named(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        cards.read_card(str(folder))


@pytest.mark.parametrize("length", [0, 3, 2**20, 2**40, 2**63 - 1, 2**64 - 1])
def test_a_header_is_no_longer_than_its_file(folder, length, monkeypatch):
    """Who trusted the length would ask for that much memory before anything is read."""
    read = []
    monkeypatch.setattr("json.loads", lambda text: read.append(text) or {})
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(ModelError, match=f"its header would have {length:,} bytes, the file has 10"):
        cards.stored_weights(folder)
    assert not read


def test_a_header_is_no_longer_than_any_of_ours(folder, monkeypatch):
    monkeypatch.setattr(early, "MOST_BYTES", 64)
    with pytest.raises(ModelError, match="its header would have"):
        cards.stored_weights(folder)


def test_weights_that_are_a_pipe_hold_nobody_up(folder):
    os.mkfifo(folder / "more.safetensors")
    with pytest.raises(ModelError, match="it is no file"):
        cards.read_card(str(folder))
    (folder / "more.safetensors").unlink()
    (folder / "more.safetensors").symlink_to(folder / "model.safetensors")  # as in a hub's cache
    assert cards.read_card(str(folder)).params == 34


def test_the_engine_adds_what_it_knows(folder):
    found = {"name": "x", "device": "cpu", "dtype": "torch.float32", "memory_gib": 0.5, "params": 99}
    card = cards.card_from_engine(str(folder), found)
    assert (card.device, card.dtype, card.memory_gib, card.layers, card.params) == (
        "cpu",
        "float32",
        0.5,
        2,
        99,
    )


def test_a_config_alone_is_told_from_a_model(folder):
    assert cards.read_card(str(folder)).bare is False
    (folder / "model.safetensors").unlink()
    card = cards.read_card(str(folder))
    assert card.bare is True and card.params is None and card.layers == 2
