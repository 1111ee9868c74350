from __future__ import annotations

import json
import math
import weakref
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import ArtifactError, DataError, StopRequested
from core.evaluate import perplexity as module
from core.evaluate.perplexity import perplexity
from core.results.perplexity import (
    PERPLEXITY,
    Perplexity,
    by_text,
    keep_perplexities,
    on_text,
    read_perplexities,
)


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
    measured = perplexity(tiny_llama, windows)
    assert measured.ppl == pytest.approx(naive(tiny_llama, windows), rel=1e-5)
    assert measured.ppl == pytest.approx(math.exp(measured.nll))
    assert (measured.tokens, measured.window) == (60, 12)


def test_logits_are_given_up_before_the_next_are_made(tiny_llama: Any, windows: torch.Tensor) -> None:
    made: list[weakref.ref[torch.Tensor]] = []

    class Watched:
        parameters, config = tiny_llama.parameters, tiny_llama.config

        def __call__(self, **named: Any) -> Any:
            assert not any(logits() is not None for logits in made), "two batches of logits are held"
            return tiny_llama(**named)

    perplexity(Watched(), windows, batch_size=2, on_logits=lambda logits, _: made.append(weakref.ref(logits)))
    assert len(made) == 3


def test_its_error_is_that_of_the_windows(tiny_llama: Any, windows: torch.Tensor) -> None:
    """Window by window, by the delta method, and the same in batches."""
    measured = perplexity(tiny_llama, windows, batch_size=2)
    alone = torch.tensor([math.log(naive(tiny_llama, window[None])) for window in windows])
    assert measured.losses == pytest.approx(alone.tolist(), rel=1e-5)
    assert measured.stderr == pytest.approx(measured.ppl * float(alone.std()) / math.sqrt(5), rel=1e-3)
    assert measured.windows == 5
    one = perplexity(tiny_llama, windows[:1])
    assert one.stderr is None, "nobody knows how windows differ"


def test_the_error_covers_how_texts_differ(tiny_llama: Any) -> None:
    """Of many texts of one source the perplexities spread as far as the standard error says."""
    draw = torch.Generator().manual_seed(2)
    texts = [torch.randint(3, 128, (16, 12), generator=draw) for _ in range(60)]
    measured = [perplexity(tiny_llama, text, batch_size=16) for text in texts]
    spread = float(torch.tensor([each.ppl for each in measured]).std())
    errors = [each.stderr for each in measured if each.stderr is not None]
    assert len(errors) == 60 and spread == pytest.approx(sum(errors) / 60, rel=0.3)


def test_only_the_same_tokens_have_the_same_hash(tiny_llama: Any, windows: torch.Tensor) -> None:
    other = windows.clone()
    other[0, 0] += 1
    hashes = {perplexity(tiny_llama, ids).ids for ids in (windows, windows.clone(), other)}
    assert len(hashes) == 2


def test_it_is_kept_side_by_side_and_a_damaged_file_is_said(tmp_path: Path) -> None:
    one = Perplexity(3.0, math.log(3.0), 24, 12, "a", (1.0, 1.2))
    two = replace(one, text="facts", sha256="b")
    for side in ("dense", "pruned"):
        keep_perplexities(tmp_path, side, [one, two])
    assert read_perplexities(tmp_path) == {"dense": (one, two), "pruned": (one, two)}
    assert on_text((one, two), 0, "b") == one and on_text((one, two), 1, "b") == two
    assert on_text((one, two), 1, "c") is None and on_text((), 0, "b") is None
    assert read_perplexities(tmp_path / "none") == {}
    (tmp_path / PERPLEXITY).write_text('{"dense": {"ppl": 3}}')
    with pytest.raises(ArtifactError, match="measure again"):
        read_perplexities(tmp_path)
    keep_perplexities(tmp_path, "dense", [one])
    assert read_perplexities(tmp_path) == {"dense": (one,)}


def test_a_run_that_measured_one_text_reads_as_one_of_several(tmp_path: Path) -> None:
    one = Perplexity(3.0, math.log(3.0), 24, 12, "a", (1.0, 1.2))
    (tmp_path / PERPLEXITY).write_text(json.dumps({"dense": asdict(one)}))
    assert read_perplexities(tmp_path) == {"dense": (one,)}
    old = {"ppl_before": 9.0, "ppl_text": "t", "calibration_text": "c", "params_before": 3}
    assert by_text(old) == [{"ppl_before": 9.0, "ppl_text": "t", "calibration_text": "c"}]
    assert by_text({"params_before": 3}) == [] and by_text({"perplexities": [{"ppl": 9.0}]}) == [{"ppl": 9.0}]


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
