"""Let a model write its own calibration text where there is no data."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor
from transformers import PreTrainedModel

from core.errors import DataError
from core.graph.hooks import evaluating
from core.models.tokens import Progress, context_length, last_only, special_ids

#: How many windows are written side by side.
_BATCH = 16


@torch.inference_mode()
def write(
    model: PreTrainedModel, *, samples: int, length: int, seed: int, on_progress: Progress | None = None
) -> LongTensor:
    """Draw windows from the model's own distribution.

    A window begins with the begin-of-text token, or with an evenly drawn token if the model has none, and
    goes on token by token at temperature 1. Special tokens are never drawn, so every window is full.

    Args:
        seed: gives the same windows on every device, up to rounding.
        on_progress: called with (tokens written, tokens in all), of all windows together.

    Returns:
        Token ids, (samples, length), on the CPU.

    Raises:
        DataError: `length` is more than the model reads, or its logits are not finite.

    Source: the output-approximation paper, Section 4.2, self-generated calibration data.
    """
    limit = context_length(model)
    if limit is not None and length > limit:
        raise DataError(f"length must be at most {limit:,}, which is what this model reads, got {length:,}.")
    generator = torch.Generator().manual_seed(seed)
    batches: list[Tensor] = []
    with evaluating(model):
        for first in range(0, samples, _BATCH):
            count = min(_BATCH, samples - first)
            ids, past = _begin(model, count, generator), None
            while ids.shape[1] < length:
                fresh = ids if past is None else ids[:, -1:]
                out = model(
                    input_ids=fresh.to(model.device), past_key_values=past, use_cache=True, **last_only(model)
                )
                past = out.past_key_values
                ids = torch.cat([ids, _draw(model, out.logits[:, -1], generator)], dim=1)
                if on_progress is not None:
                    on_progress(first * length + count * ids.shape[1], samples * length)
            batches.append(ids)
    return torch.cat(batches)  # type: ignore[return-value]


def _begin(model: PreTrainedModel, count: int, generator: torch.Generator) -> Tensor:
    config = model.config.get_text_config()
    if isinstance(config.bos_token_id, int):
        return torch.full((count, 1), config.bos_token_id)
    even = torch.ones(count, config.vocab_size)
    even[:, special_ids(model)] = 0
    return torch.multinomial(even, 1, generator=generator)


def _draw(model: PreTrainedModel, logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a token per window, (windows, 1), on the CPU, so that a seed means the same everywhere."""
    logits = logits.float().cpu()
    logits[:, special_ids(model)] = -torch.inf
    if not bool((logits < torch.inf).all()):
        raise DataError("The model's logits are not finite, so it cannot write its own calibration text.")
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
