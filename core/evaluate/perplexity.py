"""Perplexity on windows of fixed length, which stands beside every number because it matters that much."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.errors import DataError
from core.evaluate.reference import Listener
from core.results.perplexity import Perplexity
from core.spec.evaluate import WORKBENCH

#: Logits scored at a time: 4 MiB in float32 stay in the cache, 5 times faster than 128 MiB on two cores.
_CHUNK_ELEMENTS = 2**20
#: Logits a model may return at a time; 1 GiB in float32.
_BATCH_ELEMENTS = 2**28


def perplexity(
    model: Any,
    windows: Tensor,
    *,
    protocol: str = WORKBENCH,
    text: str = "",
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
    on_logits: Listener | None = None,
) -> Perplexity:
    """Score every window on its own: each token given those before it in the window.

    Args:
        windows: token ids, (windows, window), without padding.
        protocol, text: how and of what the windows were cut, for the record.
        batch_size: windows at a time; fewer where the vocabulary is large.
        on_progress: called with the windows that are done and in all.
        on_logits: told the logits of every batch, and the number of its first window.

    Raises:
        DataError: there is nothing to predict.
    """
    check_windows(windows)
    losses: list[float] = []
    for batch in batches(model, windows, batch_size):
        logits = next_token_logits(model, batch)
        if on_logits:
            on_logits(logits, len(losses))
        losses += window_losses(logits, batch)
        del logits  # a GiB perhaps, which would be held while the model makes the next
        if on_progress:
            on_progress(len(losses), len(windows))
    return replace(summarise(losses, windows), protocol=protocol, text=text)


def check_windows(windows: Tensor) -> None:
    """Raise DataError unless at least one window has at least one token to predict."""
    if windows.ndim != 2 or len(windows) == 0 or windows.shape[1] < 2:
        raise DataError(f"Perplexity needs windows of at least 2 tokens, got shape {tuple(windows.shape)}.")


def batches(model: Any, windows: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Split windows into batches, (batch, window), on the model's device, whose logits fit in memory."""
    rows = max(1, _BATCH_ELEMENTS // (windows.shape[1] * vocabulary(model)))
    return windows.to(next(model.parameters()).device).split(min(batch_size, rows))


def vocabulary(model: Any) -> int:
    """How many logits the model returns per position."""
    return int(model.config.get_text_config().vocab_size)


@torch.no_grad()
def next_token_logits(
    model: Any, ids: Int[Tensor, "batch window"]
) -> Float[Tensor, "batch window vocabulary"]:
    """Logits of a whole window without cache, (batch, window, vocabulary)."""
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


@torch.no_grad()
def window_losses(
    logits: Float[Tensor, "batch window vocabulary"], ids: Int[Tensor, "batch window"]
) -> list[float]:
    """Summed negative log-likelihood of every window, in nats: in float32, a few positions at a time.

    Args:
        logits: (batch, window, vocabulary); ids: (batch, window).
    """
    step = max(1, _CHUNK_ELEMENTS // logits.shape[-1])
    sums = []
    for row, targets in zip(logits[:, :-1], ids[:, 1:], strict=True):  # one window: a view, not a copy
        chunks = zip(row.split(step), targets.split(step), strict=True)
        losses = (torch.nn.functional.cross_entropy(part.float(), to, reduction="sum") for part, to in chunks)
        sums.append(sum(loss.item() for loss in losses))
    return sums


def summarise(losses: Sequence[float], windows: Int[Tensor, "windows window"]) -> Perplexity:
    """Perplexity from the summed negative log-likelihood of each of these windows."""
    count, window = windows.shape
    means = tuple(loss / (window - 1) for loss in losses)
    nll = sum(losses) / (count * (window - 1))
    return Perplexity(math.exp(min(nll, 700.0)), nll, count * window, window, ids_of(windows), means)


def ids_of(windows: Int[Tensor, "windows window"]) -> str:
    """A hash of all token ids."""
    digest = hashlib.sha256(windows.to("cpu", torch.int64).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
