from __future__ import annotations

from typing import Any

import pytest
import torch

from core.evaluate.efficiency import measure, weights_bytes
from tests.handmade import tiny


def test_models_take_turns_after_a_warm_up() -> None:
    models = {"dense": tiny(), "pruned": tiny(intermediate_size=8)}
    calls: list[tuple[str, int, bool]] = []
    for name, model in models.items():

        def note(module: Any, args: Any, kwargs: Any, name: str = name) -> None:
            calls.append((name, kwargs["input_ids"].shape[1], kwargs.get("past_key_values") is not None))

        model.register_forward_pre_hook(note, with_kwargs=True)
    told: list[tuple[int, int]] = []
    found = measure(
        models,
        prompt_tokens=16,
        new_tokens=2,
        repeats=3,
        on_progress=lambda done, total: told.append((done, total)),
    )
    turn = [(16, False), (1, True), (1, True)]
    assert calls == [(name, *call) for _ in range(4) for name in models for call in turn]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert found["dense"].params > found["pruned"].params
    assert found["dense"].weights_gib > found["pruned"].weights_gib


def test_the_numbers_belong_together() -> None:
    model = tiny()
    found = measure({"model": model}, prompt_tokens=8, new_tokens=2, repeats=2)["model"]
    assert found.tokens_per_second == pytest.approx(1000 / found.decode_ms)
    assert min(found.latency_ms, found.decode_ms) > 0
    assert min(found.latency_spread_ms, found.decode_spread_ms) >= 0
    assert (found.repeats, found.prompt_tokens, found.new_tokens) == (2, 8, 2)
    assert found.memory_gib == found.weights_gib == weights_bytes(model) / 2**30


def test_tied_weights_count_once() -> None:
    tied, untied = tiny(tie_word_embeddings=True), tiny()
    assert weights_bytes(untied) - weights_bytes(tied) == 96 * 32 * 4


def test_a_short_context_is_respected() -> None:
    model = tiny(max_position_embeddings=16)
    lengths: list[int] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    measure({"model": model}, prompt_tokens=64, new_tokens=4, repeats=1)
    assert max(lengths) == 12


def test_the_median_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.evaluate import efficiency

    seconds = iter([(9.0, 9.0, 0), (1.0, 4.0, 0), (5.0, 8.0, 0), (2.0, 6.0, 0)])
    monkeypatch.setattr(efficiency, "_round", lambda *_: next(seconds))
    found = measure({"model": tiny()}, new_tokens=2, repeats=3)["model"]
    assert (found.latency_ms, found.latency_spread_ms) == (2000.0, 4000.0)
    assert (found.decode_ms, found.decode_spread_ms) == (3000.0, 2000.0)


@pytest.mark.gpu
def test_the_peak_is_measured_on_cuda() -> None:
    found = measure({"model": tiny().to("cuda", torch.bfloat16)})["model"]
    assert found.memory_gib > found.weights_gib
