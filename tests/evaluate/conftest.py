"""What tests of the evaluation share."""

from __future__ import annotations

import pytest

from tests.evaluate.scoring import tiny


@pytest.fixture(scope="module")
def byte_tokenizer():
    """One token a byte: words have tokens of their own, so scores differ, and a letter can be cut in half."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    raw = Tokenizer(models.BPE(vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@pytest.fixture(scope="module")
def model():
    """A model of bytes, with random weights."""
    return tiny()
