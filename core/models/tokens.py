"""What a model's config says of tokens: which are special, and how many the model reads at once."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

Progress = Callable[[int, int], None]


def special_positions(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Where `ids` has padding, begin and end tokens, as the model's config names them, (batch, length)."""
    return torch.isin(ids, torch.tensor(special_ids(model), dtype=ids.dtype, device=ids.device))


def special_ids(model: PreTrainedModel) -> list[int]:
    """Padding, begin and end tokens, as the model's config names them."""
    special: set[int] = set()
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        value = getattr(model.config.get_text_config(), name, None)
        special.update(id_ for id_ in (value if isinstance(value, list) else [value]) if id_ is not None)
    return sorted(special)


def context_length(model: Any) -> int | None:
    """How many tokens the model reads at most; None if its config does not say."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def last_only(model: Any) -> dict[str, int]:
    """The argument that saves the logits of all positions but the last, for models that take it."""
    return {"logits_to_keep": 1} if "logits_to_keep" in signature(model.forward).parameters else {}
