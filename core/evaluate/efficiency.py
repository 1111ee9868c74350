"""What a model costs at run time, measured. Models take turns, so that a busy moment hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from core.evaluate.generation import context_length, last_only
from core.evaluate.perplexity import vocabulary

_GIB = 2**30


@dataclass(frozen=True)
class Efficiency:
    """One model's cost; times are medians over the repeats.

    Attributes:
        latency_ms: reading the prompt, up to the logits of the first new token.
        latency_spread_ms: slowest minus fastest.
        decode_ms: one more token; tokens_per_second: the same as a rate.
        weights_gib: parameters and buffers.
        memory_gib: weights, and on CUDA the most that a round took on top of them; elsewhere the
            weights alone, since the system does not tell.
        prompt_tokens, new_tokens, repeats: how it was measured.
    """

    params: int
    latency_ms: float
    latency_spread_ms: float
    decode_ms: float
    decode_spread_ms: float
    tokens_per_second: float
    weights_gib: float
    memory_gib: float
    prompt_tokens: int
    new_tokens: int
    repeats: int


@dataclass
class _Times:
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    extra: int = 0


def measure(
    models: dict[str, Any],
    *,
    prompt_tokens: int = 64,
    new_tokens: int = 8,
    repeats: int = 3,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Efficiency]:
    """Time reading a prompt and writing tokens with cache, batch 1, after one round to warm up.

    Args:
        models: name -> model, all of them in memory.
        on_progress: told how many rounds are done, the warm-up included.
    """
    times = {name: _Times() for name in models}
    for done in range(repeats + 1):
        for name, model in models.items():
            prefill, decode, extra = _round(model, _prompt(model, prompt_tokens, new_tokens), new_tokens)
            if done:  # the first round warms up
                times[name].prefill.append(prefill)
                times[name].decode.append(decode / new_tokens)
            times[name].extra = max(times[name].extra, extra)
        if on_progress:
            on_progress(done + 1, repeats + 1)
    return {name: _summary(model, times[name], prompt_tokens, new_tokens) for name, model in models.items()}


def weights_bytes(model: Any) -> int:
    """Memory that parameters and buffers take; tied ones once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()])


def _prompt(model: Any, prompt_tokens: int, new_tokens: int) -> Tensor:
    """The same ids for every model of a vocabulary, (1, prompt_tokens), cut to what the model can read."""
    limit = context_length(model) or prompt_tokens + new_tokens
    ids = torch.arange(min(prompt_tokens, max(1, limit - new_tokens))) % vocabulary(model)
    return ids[None].to(next(model.parameters()).device)


@torch.no_grad()
def _round(model: Any, ids: Tensor, new_tokens: int) -> tuple[float, float, int]:
    """Seconds to read the prompt, seconds to write the tokens, bytes taken on top of what was there."""
    on_cuda = ids.device.type == "cuda"
    held = torch.cuda.memory_allocated(ids.device) if on_cuda else 0
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(ids.device)
    began = _now(ids.device)
    out = model(input_ids=ids, use_cache=True, **last_only(model))
    read = _now(ids.device)
    for _ in range(new_tokens):
        token = out.logits[:, -1:].argmax(-1)  # (1, 1)
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
    written = _now(ids.device)
    extra = torch.cuda.max_memory_allocated(ids.device) - held if on_cuda else 0
    return read - began, written - read, extra


def _now(device: torch.device) -> float:
    """The clock once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def _summary(model: Any, times: _Times, prompt_tokens: int, new_tokens: int) -> Efficiency:
    prefill, decode = ([1e3 * second for second in part] for part in (times.prefill, times.decode))
    weights = weights_bytes(model)
    return Efficiency(
        params=sum(parameter.numel() for parameter in model.parameters()),
        latency_ms=median(prefill),
        latency_spread_ms=max(prefill) - min(prefill),
        decode_ms=median(decode),
        decode_spread_ms=max(decode) - min(decode),
        tokens_per_second=1e3 / median(decode),
        weights_gib=weights / _GIB,
        memory_gib=(weights + times.extra) / _GIB,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        repeats=len(prefill),
    )
