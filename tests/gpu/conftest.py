"""Where the tests of the GPU tier run, and on what: tiny folders of six families."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from tests.conftest import random_model, word_tokenizer
from tests.graph.families import CONFIGS

#: Grouped queries, norms of queries and keys, Conv1D, one matrix for all three, norms on both sides, experts.
FAMILIES = ("llama", "qwen3", "gpt2", "gpt_neox", "gemma2", "mixtral")
#: To try the tests themselves on a machine without a card: PRUNEVIZ_GPU_TIER=cpu.
DEVICE = os.environ.get("PRUNEVIZ_GPU_TIER", "cuda")


@pytest.fixture
def device() -> str:
    """The device of this tier; skips where there is none."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    return DEVICE


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> a folder with a tiny model and a tokenizer of words."""
    made = {}
    for family in FAMILIES:
        kind, options = CONFIGS[family]
        longer = {name: 256 for name in ("max_position_embeddings", "n_positions") if name in options}
        config = AutoConfig.for_model(kind, **{**options, **longer, "vocab_size": 128})
        made[family] = tmp_path_factory.mktemp("families") / family
        random_model(config).save_pretrained(made[family])
        word_tokenizer().save_pretrained(made[family])
    return made
