"""The divergence from the dense model: its definition, at positions spread over the text, bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.evaluate import reference
from core.evaluate.perplexity import perplexity
from core.evaluate.reference import Comparing, Keeping, Reference, places_of
from tests.conftest import llama_config, random_model

WINDOWS = torch.randint(0, 90, (5, 7), generator=torch.Generator().manual_seed(0))


def kept() -> Reference:
    dense = random_model(llama_config())
    keeping = Keeping(5, 7, dense.config.vocab_size)
    perplexity(dense, WINDOWS, batch_size=2, on_logits=keeping)
    return keeping.reference()


@pytest.mark.parametrize("places", [30, 7])
def test_it_is_the_mean_divergence_at_these_positions(places: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of KL(dense || other) written out in float64."""
    dense, other = random_model(llama_config()), random_model(llama_config())
    with torch.no_grad():
        other.lm_head.weight.mul_(0.3)
    monkeypatch.setattr(reference, "_MOST", places * dense.config.vocab_size)
    comparing = Comparing(kept())
    perplexity(other, WINDOWS, batch_size=2, on_logits=comparing)
    with torch.no_grad():
        p, q = (model(WINDOWS).logits.double().log_softmax(-1) for model in (dense, other))
    apart = (p.exp() * (p - q)).sum(-1)
    where = places_of(5, 7, dense.config.vocab_size)
    assert len(where) == places and int(where[:, 1].max()) <= 5  # the last position predicts nothing
    wanted = apart[where[:, 0], where[:, 1]]
    assert comparing.mean() == pytest.approx(float(wanted.mean()), rel=1e-3)
    assert comparing.by_window()[1] == pytest.approx(float(wanted[where[:, 0] == 1].mean()), rel=1e-3)
    assert len(comparing.by_window()) == 5


def test_the_dense_model_is_not_far_from_itself() -> None:
    comparing = Comparing(kept())
    perplexity(random_model(llama_config()), WINDOWS, batch_size=3, on_logits=comparing)
    assert 0 <= comparing.mean() < 1e-5


def test_positions_are_spread_evenly_and_bounded() -> None:
    where = places_of(16, 256, 49_152)
    assert len(where) == 2**26 // 49_152 and len(where.unique(dim=0)) == len(where)
    assert sorted(set(where[:, 0].tolist())) == list(range(16))
    per_window = where[:, 0].bincount()
    assert int(per_window.max() - per_window.min()) <= 1


def test_it_is_held_once() -> None:
    dense = random_model(llama_config())
    keeping = Keeping(5, 7, dense.config.vocab_size)
    perplexity(dense, WINDOWS, batch_size=2, on_logits=keeping)
    first, second = keeping.reference(), keeping.reference()
    assert first.expected.data_ptr() == second.expected.data_ptr()
    assert first.expected.isfinite().all()


def test_it_is_kept_on_disk(tmp_path: Path) -> None:
    ours = kept()
    ours.save(tmp_path / "it.safetensors")
    again = Reference.read(tmp_path / "it.safetensors")
    assert torch.equal(ours.places, again.places) and torch.equal(ours.expected, again.expected)
