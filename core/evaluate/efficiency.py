"""Measure what a model costs at run time. Models take turns, so that a busy moment hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from core.evaluate.perplexity import vocabulary
from core.models.tokens import context_length, last_only
from core.results.efficiency import Efficiency, Timing

_GIB = 2**30


@dataclass(frozen=True)
class _Round:
    """One reading of the prompts and writing of the tokens.

    Attributes:
        prefill: seconds to read the prompts; decode: seconds to write the tokens.
        extra_bytes: the peak of allocated memory above what was allocated before; CUDA only.
        kv_bytes, kv_bits: key-value cache of one token, and bits per number of it; None where it is hidden.
    """

    prefill: float
    decode: float
    extra_bytes: int = 0
    kv_bytes: int | None = None
    kv_bits: int | None = None


def measure(
    models: dict[str, Any],
    *,
    prompt_tokens: int = 64,
    new_tokens: int = 8,
    repeats: int = 5,
    batch_sizes: Sequence[int] = (1, 4),
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Efficiency]:
    """Time how models read prompts and write tokens with a cache, after one round to warm up.

    Args:
        models: name -> model, all of them in memory.
        repeats: timed rounds of each batch size.
        on_progress: called with the rounds that are done and in all, warm-up included.
    """
    order = [batch for batch in batch_sizes for _ in range(repeats + 1)]
    rounds: dict[str, dict[int, list[_Round]]] = {
        name: {batch: [] for batch in batch_sizes} for name in models
    }
    for done, batch in enumerate(order, 1):
        for name, model in models.items():
            prompts = _prompts(model, batch, prompt_tokens, new_tokens)
            rounds[name][batch].append(_round(model, prompts, new_tokens))
        if on_progress:
            on_progress(done, len(order))
    return {
        name: _summary(model, rounds[name], _length(model, prompt_tokens, new_tokens), new_tokens)
        for name, model in models.items()
    }


def _summary(model: Any, rounds: dict[int, list[_Round]], prompt_tokens: int, new_tokens: int) -> Efficiency:
    """Medians, spreads and rates of a model's rounds, which lie by batch size, the first to warm up."""
    weights = weights_bytes(model)
    timings = tuple(_timing(batch, timed, prompt_tokens, new_tokens) for batch, (_, *timed) in rounds.items())
    flat = [each for of_batch in rounds.values() for each in of_batch]
    return Efficiency(
        params=sum(parameter.numel() for parameter in model.parameters()),
        latency_ms=timings[0].prefill_ms,
        tokens_per_second=timings[0].decode_tokens_per_second,
        weights_gib=weights / _GIB,
        memory_gib=(weights + max(each.extra_bytes for each in flat)) / _GIB,
        kv_bytes_per_token=flat[-1].kv_bytes,
        timings=timings,
        kv_bits=flat[-1].kv_bits,
    )


def _timing(batch: int, rounds: Sequence[_Round], prompt_tokens: int, new_tokens: int) -> Timing:
    prefill = [1e3 * each.prefill for each in rounds]
    decode = [1e3 * each.decode / new_tokens for each in rounds]
    return Timing(
        batch=batch,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        repeats=len(prefill),
        prefill_ms=median(prefill),
        prefill_spread_ms=max(prefill) - min(prefill),
        prefill_tokens_per_second=1e3 * batch * prompt_tokens / median(prefill),
        decode_ms=median(decode),
        decode_spread_ms=max(decode) - min(decode),
        decode_tokens_per_second=1e3 * batch / median(decode),
        prefill_rounds_ms=tuple(prefill),
        decode_rounds_ms=tuple(decode),
    )


def weights_bytes(model: Any) -> int:
    """Bytes that parameters and buffers take; tied ones count once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()])


def _length(model: Any, prompt_tokens: int, new_tokens: int) -> int:
    """How many tokens a prompt has: no more than the model can read along with the new ones."""
    limit = context_length(model) or prompt_tokens + new_tokens
    return min(prompt_tokens, max(1, limit - new_tokens))


def _prompts(model: Any, batch: int, prompt_tokens: int, new_tokens: int) -> Tensor:
    """Token ids, (batch, prompt_tokens), the same for all models with the same vocabulary."""
    ids = torch.arange(_length(model, prompt_tokens, new_tokens)) % vocabulary(model)
    return ids.expand(batch, -1).to(next(model.parameters()).device)


@torch.no_grad()
def _round(model: Any, ids: Tensor, new_tokens: int) -> _Round:
    """Read the prompts, (batch, tokens), and write `new_tokens` of each."""
    on_cuda = ids.device.type == "cuda"
    before = torch.cuda.memory_allocated(ids.device) if on_cuda else 0
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(ids.device)
    began = _now(ids.device)
    out = model(input_ids=ids, use_cache=True, **last_only(model))
    prefilled = _now(ids.device)
    cache = _cached(getattr(out, "past_key_values", None))
    kv_bytes = sum(tensor.numel() * tensor.element_size() for tensor in cache) // ids.numel() or None
    kv_bits = 8 * cache[0].element_size() if cache else None
    for _ in range(new_tokens):
        token = out.logits[:, -1:].argmax(-1)  # (batch, 1)
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
    decoded = _now(ids.device)
    extra = torch.cuda.max_memory_allocated(ids.device) - before if on_cuda else 0
    return _Round(prefilled - began, decoded - prefilled, extra, kv_bytes, kv_bits)


def _cached(cache: Any) -> list[Tensor]:
    """All keys and values in a cache; empty if it does not show them layer by layer."""
    layers = getattr(cache, "layers", None) or []
    if not all(hasattr(layer, "keys") and hasattr(layer, "values") for layer in layers):
        return []
    return [tensor for layer in layers for tensor in (layer.keys, layer.values)]


def _now(device: torch.device) -> float:
    """The time once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
