from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import DataError, SpecError
from core.evaluate.perplexity import perplexity
from core.models.self_text import write
from core.models.texts import Text, evaluation_text, title_of
from core.models.windows import calibration_windows, consecutive_windows, evaluation_windows, sample_windows
from core.spec.evaluate import PROTOCOLS, EvalSpec


def with_begin_token(tokenizer: Any) -> Any:
    """The same tokenizer, which puts `<s>` before every text as Llama's does."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", None, [("<s>", 1)])
    return tokenizer


@pytest.fixture
def counted() -> Text:
    """A text whose token ids are 50, 51, 52, … under the tiny tokenizer."""
    return Text("counted", " ".join(f"w{i % 90}" for i in range(90)), "x")


def test_sampled_windows_do_not_overlap_and_follow_the_seed(tiny_tokenizer, counted) -> None:  # type: ignore[no-untyped-def]
    windows = sample_windows(tiny_tokenizer, counted, samples=8, length=10, seed=3)
    assert windows.shape == (8, 10)
    assert windows.unique().numel() == 80, "a token is in two windows"
    assert (windows.diff(dim=1) == 1).all(), "a window is not one stretch of the text"
    assert torch.equal(windows, sample_windows(tiny_tokenizer, counted, samples=8, length=10, seed=3))
    assert not torch.equal(windows, sample_windows(tiny_tokenizer, counted, samples=8, length=10, seed=4))


def test_consecutive_windows_stop_where_the_text_does(tiny_tokenizer, counted) -> None:  # type: ignore[no-untyped-def]
    windows = consecutive_windows(tiny_tokenizer, counted, window=20, tokens=60)
    assert windows.shape == (3, 20)
    assert torch.equal(windows.flatten(), windows[0, 0] + torch.arange(60))
    assert consecutive_windows(tiny_tokenizer, counted, window=20, tokens=10_000).shape == (4, 20)


def test_short_texts_are_refused_with_the_numbers(tiny_tokenizer, counted) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="has 90 tokens, but 10 windows of 10 need 100"):
        sample_windows(tiny_tokenizer, counted, samples=10, length=10, seed=0)
    with pytest.raises(DataError, match="has 90 tokens, but one window is 91"):
        consecutive_windows(tiny_tokenizer, counted, window=91, tokens=91)


def test_windows_begin_as_the_tokenizer_begins_a_text(tiny_tokenizer, counted) -> None:  # type: ignore[no-untyped-def]
    tokenizer = with_begin_token(tiny_tokenizer)
    for windows in (
        sample_windows(tokenizer, counted, samples=3, length=10, seed=0),
        consecutive_windows(tokenizer, counted, window=10, tokens=30),
    ):
        assert windows.shape == (3, 10)
        assert (windows[:, 0] == tokenizer.bos_token_id).all()
        assert not (windows[:, 1:] == tokenizer.bos_token_id).any()


def test_what_the_model_writes_is_seeded_full_and_without_special_tokens(
    tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    told: list[tuple[int, int]] = []

    def windows(seed: int, model: Any = tiny_llama, length: int = 10) -> tuple[torch.Tensor, Text]:
        return calibration_windows(
            model, tiny_tokenizer, "self", samples=18, length=length, seed=seed,
            on_progress=lambda *at: told.append(at),
        )  # fmt: skip

    first, text = windows(1)
    assert first.shape == (18, 10) and (first[:, 0] == 1).all() and (first[:, 1:] > 2).all()
    assert told[-1] == (180, 180) and text.name == "text the model wrote itself" and text.text
    count = len(told)
    assert windows(1)[0] is first and len(told) == count, "written once"
    assert torch.equal(write(tiny_llama, samples=18, length=10, seed=1), first)
    assert not torch.equal(windows(2)[0], first)
    with torch.no_grad():  # drawn from the model: its own text is likelier to it than random tokens
        scores = [
            tiny_llama(ids, labels=ids, use_cache=False).loss
            for ids in (first, torch.randint(3, 128, first.shape, generator=torch.Generator().manual_seed(0)))
        ]
    assert scores[0] < scores[1]
    with pytest.raises(DataError, match="at most 256"):
        windows(1, length=257)


def test_a_model_without_a_begin_token_begins_anywhere(tiny_llama: Any) -> None:
    tiny_llama.config.bos_token_id = None
    windows = write(tiny_llama, samples=20, length=3, seed=0)
    assert len(windows[:, 0].unique()) > 5 and (windows != 2).all() and (windows != 0).all()


def test_no_text_is_refused_where_one_is_needed(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    with pytest.raises(DataError, match="needed here, got 'none'"):
        calibration_windows(tiny_llama, tiny_tokenizer, "none", samples=2, length=8, seed=0)
    with pytest.raises(DataError, match=r"Unknown text 'self'.*bundled"):
        evaluation_text("self")
    assert title_of("none") == "no text"


@torch.no_grad()
def as_released(model: Any, tokenizer: Any, text: str, length: int) -> float:
    """The perplexity that LLM-Pruner's and NutePrune's released evaluators compute, in plain transformers."""
    ids = tokenizer(text, return_tensors="pt").input_ids[0]
    windows = [ids[i * length : (i + 1) * length] for i in range(len(ids) // length)]
    losses = []
    for window in windows:
        logits = model(window[None]).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, window[1:], reduction="none"))
    return math.exp(torch.cat(losses).mean().item())


@pytest.mark.parametrize("begins", [True, False], ids=["begin-token", "no-begin-token"])
@pytest.mark.parametrize(("protocol", "window", "length"), [("llm-pruner", None, 128), ("nuteprune", 99, 99)])
def test_the_papers_protocols_are_as_released(
    tiny_llama: Any, tiny_tokenizer: Any, texts: tuple[Path, Path],
    begins: bool, protocol: str, window: int | None, length: int,
) -> None:  # fmt: skip
    tokenizer = with_begin_token(tiny_tokenizer) if begins else tiny_tokenizer
    text = evaluation_text(str(texts[1]))
    windows = evaluation_windows(tokenizer, text, protocol=protocol, window=window)
    assert windows.shape == (2000 // length, length), "what is left over is not scored"
    assert (windows == 1).sum() == begins, "one begin token, at the beginning of the stream"
    measured = perplexity(tiny_llama, windows, protocol=protocol, text=text.name)
    assert measured.ppl == pytest.approx(as_released(tiny_llama, tokenizer, text.text, length), rel=1e-4)
    assert (
        measured.ppl
        != pytest.approx(
            perplexity(tiny_llama, evaluation_windows(tokenizer, text, window=length)).ppl, rel=1e-4
        )
        or not begins
    )
    assert (measured.protocol, measured.text) == (protocol, "evaluation.txt")
    assert measured.scored == measured.tokens - measured.windows


def test_a_protocol_has_a_window_and_takes_the_whole_text() -> None:
    lengths = {name: EvalSpec(protocol=name).window_length for name in PROTOCOLS}
    assert lengths == {"workbench": 256, "llm-pruner": 128, "nuteprune": 2048}
    assert EvalSpec(protocol="nuteprune", window=512).window_length == 512
    with pytest.raises(SpecError, match="tokens must be a whole number from 2048 up"):
        EvalSpec(protocol="nuteprune", tokens=1000)
    with pytest.raises(SpecError, match=r"Unknown ppl-protocol 'llmpruner'\. Did you mean 'llm-pruner'"):
        EvalSpec(protocol="llmpruner")


def test_fewer_tokens_than_asked_for_are_refused_with_the_numbers(tiny_tokenizer: Any, counted: Text) -> None:
    assert len(evaluation_windows(tiny_tokenizer, counted, window=20)) == 4, "as many as there are"
    assert len(evaluation_windows(tiny_tokenizer, counted, window=20, tokens=79)) == 3
    with pytest.raises(DataError, match=r"has 90 tokens, enough for 4 windows of 20, but 100 tokens"):
        evaluation_windows(tiny_tokenizer, counted, window=20, tokens=100)
    with pytest.raises(DataError, match="has 90 tokens, but one window is 128; take"):
        evaluation_windows(tiny_tokenizer, counted, protocol="llm-pruner")
