from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from core.errors import DataError, StopRequested
from core.evaluate import perplexity as module
from core.evaluate.perplexity import perplexity


def naive(model: Any, windows: torch.Tensor) -> float:
    """Token by token, as the definition says."""
    total, count = 0.0, 0
    for window in windows:
        for i in range(1, len(window)):
            with torch.no_grad():
                logits = model(window[None, :i]).logits[0, -1]
            total -= float(torch.log_softmax(logits.double(), dim=-1)[window[i]])
            count += 1
    return math.exp(total / count)


@pytest.fixture
def windows() -> torch.Tensor:
    return torch.randint(3, 128, (5, 12), generator=torch.Generator().manual_seed(1))


def test_it_is_the_definition(tiny_llama: Any, windows: torch.Tensor) -> None:
    found = perplexity(tiny_llama, windows)
    assert found.ppl == pytest.approx(naive(tiny_llama, windows), rel=1e-5)
    assert found.ppl == pytest.approx(math.exp(found.nll))
    assert (found.tokens, found.window) == (60, 12)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_batches_and_chunks_change_nothing(
    tiny_llama: Any, windows: torch.Tensor, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = perplexity(tiny_llama, windows).nll
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 300)
    assert perplexity(tiny_llama, windows, batch_size=batch_size).nll == pytest.approx(whole, rel=1e-6)


def test_a_large_vocabulary_makes_small_batches(
    tiny_llama: Any, windows: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_ELEMENTS", 2 * 12 * 128)
    assert [len(batch) for batch in module.batches(tiny_llama, windows, 8)] == [2, 2, 1]


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(windows: torch.Tensor) -> None:
    from tests.conftest import llama_config, random_model

    model = random_model(llama_config(tie_word_embeddings=False))
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    assert perplexity(model, windows).ppl == pytest.approx(128)


def test_progress_is_told_and_may_stop(tiny_llama: Any, windows: torch.Tensor) -> None:
    told: list[tuple[int, int]] = []
    perplexity(tiny_llama, windows, batch_size=2, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]

    def stop(done: int, total: int) -> None:
        raise StopRequested("enough")

    with pytest.raises(StopRequested):
        perplexity(tiny_llama, windows, on_progress=stop)


@pytest.mark.parametrize("shape", [(0, 12), (3, 1), (12,)])
def test_nothing_to_predict_is_refused(tiny_llama: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="at least 2 tokens"):
        perplexity(tiny_llama, torch.zeros(shape, dtype=torch.long))
