"""What a model costs at run time, measured. Models take turns, so that a busy moment hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from core.evaluate.perplexity import vocabulary
from core.models.tokens import context_length, last_only
from core.results.efficiency import Efficiency, Timing

_GIB = 2**30


@dataclass
class _Rounds:
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Round:
    """One round of one model.

    Attributes:
        prefill, decode: seconds to read the prompts, and to write the tokens.
        extra: bytes on top of what was allocated before.
        kv_bytes, kv_bits: key-value cache of one token, and bits per number of it; None where it is hidden.
    """

    prefill: float
    decode: float
    extra: int = 0
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
    """Time reading prompts and writing tokens with cache, after one round to warm up.

    Args:
        models: name -> model, all of them in memory.
        on_progress: told how many rounds are done, the ones to warm up included.
    """
    measured = {name: _Measured() for name in models}
    rounds = [(batch, number) for batch in batch_sizes for number in range(repeats + 1)]
    for done, (batch, number) in enumerate(rounds, 1):
        for name, model in models.items():
            timed = _round(model, _prompts(model, batch, prompt_tokens, new_tokens), new_tokens)
            measured[name].add(batch, timed, warm=number > 0)
        if on_progress:
            on_progress(done, len(rounds))
    return {
        name: measured[name].summary(model, _length(model, prompt_tokens, new_tokens), new_tokens)
        for name, model in models.items()
    }


class _Measured:
    """What the rounds of one model showed."""

    def __init__(self) -> None:
        self.rounds: dict[int, _Rounds] = {}
        self.last = _Round(0.0, 0.0)
        self.extra = 0

    def add(self, batch: int, timed: _Round, *, warm: bool) -> None:
        """Count a round; one that warms up gives no times."""
        times = self.rounds.setdefault(batch, _Rounds())
        if warm:
            times.prefill.append(timed.prefill)
            times.decode.append(timed.decode)
        self.extra = max(self.extra, timed.extra)
        self.last = timed

    def summary(self, model: Any, prompt_tokens: int, new_tokens: int) -> Efficiency:
        """Medians, spreads and rates."""
        weights = weights_bytes(model)
        timings = tuple(
            _timing(batch, times, prompt_tokens, new_tokens) for batch, times in self.rounds.items()
        )
        return Efficiency(
            params=sum(parameter.numel() for parameter in model.parameters()),
            latency_ms=timings[0].prefill_ms,
            tokens_per_second=timings[0].decode_tokens_per_second,
            weights_gib=weights / _GIB,
            memory_gib=(weights + self.extra) / _GIB,
            kv_bytes_per_token=self.last.kv_bytes,
            timings=timings,
            kv_bits=self.last.kv_bits,
        )


def _timing(batch: int, times: _Rounds, prompt_tokens: int, new_tokens: int) -> Timing:
    prefill = [1e3 * second for second in times.prefill]
    decode = [1e3 * second / new_tokens for second in times.decode]
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
    """Memory that parameters and buffers take; tied ones once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()])


def _length(model: Any, prompt_tokens: int, new_tokens: int) -> int:
    """Tokens of a prompt, cut to what the model can read."""
    limit = context_length(model) or prompt_tokens + new_tokens
    return min(prompt_tokens, max(1, limit - new_tokens))


def _prompts(model: Any, batch: int, prompt_tokens: int, new_tokens: int) -> Tensor:
    """The same ids for every model with the same vocabulary, (batch, prompt_tokens)."""
    ids = torch.arange(_length(model, prompt_tokens, new_tokens)) % vocabulary(model)
    return ids.expand(batch, -1).to(next(model.parameters()).device)


@torch.no_grad()
def _round(model: Any, ids: Tensor, new_tokens: int) -> _Round:
    """Read the prompts, (batch, tokens), and write `new_tokens` of each."""
    on_cuda = ids.device.type == "cuda"
    held = torch.cuda.memory_allocated(ids.device) if on_cuda else 0
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(ids.device)
    began = _now(ids.device)
    out = model(input_ids=ids, use_cache=True, **last_only(model))
    read = _now(ids.device)
    cache = _cached(getattr(out, "past_key_values", None))
    kv_bytes = sum(tensor.numel() * tensor.element_size() for tensor in cache) // ids.numel() or None
    kv_bits = 8 * cache[0].element_size() if cache else None
    for _ in range(new_tokens):
        token = out.logits[:, -1:].argmax(-1)  # (batch, 1)
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
    written = _now(ids.device)
    extra = torch.cuda.max_memory_allocated(ids.device) - held if on_cuda else 0
    return _Round(read - began, written - read, extra, kv_bytes, kv_bits)


def _cached(cache: Any) -> list[Tensor]:
    """All keys and values in a cache; empty if it does not show them layer by layer."""
    layers = getattr(cache, "layers", None) or []
    if not all(hasattr(layer, "keys") and hasattr(layer, "values") for layer in layers):
        return []
    return [tensor for layer in layers for tensor in (layer.keys, layer.values)]


def _now(device: torch.device) -> float:
    """The clock once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
