"""What was really loaded, compared with what config and tokenizer say, right after loading.

Weights win over words: a config that says otherwise is set to what was loaded, and a note says so. What no
model can work with is refused. All behind relies on it: surgery, saving and reloading build from the config.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from core.errors import ModelError
from core.models.early import of_other_senses, tokens_of, too_many_tokens
from core.models.stored import stays_wide

_TIED = "tie_word_embeddings"


def settle(model: PreTrainedModel, config: PretrainedConfig, dtype: torch.dtype, given: str) -> list[str]:
    """Bring a model, and its config, to what everything behind relies on.

    Args:
        config: as the files have it.

    Returns:
        What is not as the files say, in sentences.

    Raises:
        ModelError: adapter layers stand in the model.
    """
    _check_adapters(model, given)
    _settle_dtype(model, dtype)
    return _settle_ties(model, config, given)


def _settle_ties(model: PreTrainedModel, config: PretrainedConfig, given: str) -> list[str]:
    """Let the model's config say whether the output layer shares the embedding's numbers."""
    reads, writes = model.get_input_embeddings(), model.get_output_embeddings()
    if getattr(reads, "weight", None) is None or getattr(writes, "weight", None) is None:
        return []
    tied = writes.weight is reads.weight
    for part in (model.config, model.config.get_text_config()):
        if hasattr(part, _TIED):
            setattr(part, _TIED, tied)
    told = bool(getattr(config.get_text_config(), _TIED, tied))
    if told == tied or bool(getattr(config, _TIED, tied)) == tied:
        return []
    weights = "one matrix for embedding and output layer" if tied else "an output layer of its own"
    said = f"{given} says {_TIED} {str(told).lower()}"
    return [f"{said}, but its weights have {weights}: they are taken as they are"]


def _settle_dtype(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Let all weights have one type, but those that the class wants in float32."""
    for name, value in model.named_parameters():
        if value.is_floating_point() and value.dtype != dtype and not stays_wide(model, name):
            value.data = value.data.to(dtype)
    model.config.dtype = dtype


def _check_adapters(model: nn.Module, given: str) -> None:
    for name, module in model.named_modules():
        if hasattr(module, "base_layer") or hasattr(module, "lora_A"):
            raise ModelError(
                f"{given} was loaded with adapter layers, first {name}; merge the adapter into the model, as "
                "merge_and_unload of peft does, and give that."
            )


def check_vocabulary(tokenizer: Any, config: PretrainedConfig, given: str, folder: Path | None) -> list[str]:
    """Compare a tokenizer's largest token with the rows that a model's embedding has by its config.

    Args:
        folder: where the tokenizer's files lie; None where that is not on this machine's disk.

    Returns:
        A note where there are no rows for some tokens that no text has.

    Raises:
        ModelError: the tokenizer makes tokens that the model does not have.
    """
    rows, tokens = getattr(config.get_text_config(), "vocab_size", None), tokenizer.get_vocab()
    beyond = {name for name, number in tokens.items() if rows is not None and number >= rows}
    if not beyond:
        return []
    strange = beyond - _of_other_senses(tokenizer) - _of_the_class(beyond, folder)
    if not strange:
        names = ", ".join(sorted(beyond))
        return [f"{given} has no rows in its embedding for {names}: no text may have them in it"]
    raise too_many_tokens(given, rows or 0, tokens, strange)


def _of_other_senses(tokenizer: Any) -> set[str]:
    """Tokens for a picture, a film or sound: Gemma 3 has one in the tokenizer of its text models, too."""
    named = getattr(tokenizer, "special_tokens_map", {})
    return {str(token) for name, token in named.items() if of_other_senses(name)}


def _of_the_class(tokens: set[str], folder: Path | None) -> set[str]:
    """Those tokens that no file says: the tokenizer's class has them by default, and adds them."""
    path = folder / "tokenizer.json" if folder is not None else None
    if path is None or not path.is_file():
        return set()
    return tokens - set(tokens_of(path))
