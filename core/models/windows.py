"""Windows of token ids: to score units with, drawn at random; to measure perplexity on, by a protocol."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import LongTensor

from core.errors import DataError
from core.models.self_text import write
from core.models.texts import Text, calibration_text, hashed, title_of
from core.models.tokens import Progress
from core.spec.evaluate import PROTOCOLS, WORKBENCH
from core.spec.texts import MIXED, NONE, SELF

_written: weakref.WeakKeyDictionary[Any, dict[tuple[int, int, int], LongTensor]] = weakref.WeakKeyDictionary()
_tokens: weakref.WeakKeyDictionary[Any, dict[tuple[str, bool], LongTensor]] = weakref.WeakKeyDictionary()


def calibration_windows(
    model: Any,
    tokenizer: Any,
    name: str = MIXED,
    *,
    samples: int = 16,
    length: int = 256,
    seed: int = 0,
    on_progress: Progress | None = None,
    tokens: int | None = None,
    folder: str | None = None,
) -> tuple[LongTensor, Text]:
    """Calibration windows: drawn from a text, or written by the model, once per model.

    Args:
        on_progress: called with (tokens written, tokens in all) where the model writes.
        tokens, folder: of a data set, see `calibration_text`; without tokens as many as the windows have.

    Returns:
        Token ids, (samples, length), and the text they are from.

    Raises:
        DataError: there is no such text, it is too short, or `name` is `none`.
    """
    if name == NONE:
        raise DataError(
            f"Calibration text is needed here, got '{NONE}'; give '{MIXED}', a file, or '{SELF}'."
        )
    if name != SELF:
        text = calibration_text(name, tokens=tokens or samples * length, folder=folder)
        return sample_windows(tokenizer, text, samples=samples, length=length, seed=seed), text
    written = _written.setdefault(model, {})
    if (samples, length, seed) not in written:
        written[samples, length, seed] = write(
            model, samples=samples, length=length, seed=seed, on_progress=on_progress
        )
    windows = written[samples, length, seed]
    decoded = tokenizer.batch_decode(windows, skip_special_tokens=True)
    return windows, hashed(title_of(SELF), "\n\n".join(decoded))


def sample_windows(tokenizer: Any, text: Text, *, samples: int, length: int, seed: int) -> LongTensor:
    """Draw random windows that do not overlap, in random order.

    Returns:
        Token ids, (samples, length). If the tokenizer puts a begin-of-text token before a text, every
        window begins with it, and it counts towards `length`.

    Raises:
        DataError: the text is too short for so many windows.
    """
    ids, start = _tokenised(tokenizer, text), _start_tokens(tokenizer)
    take = length - len(start)
    spare = len(ids) - samples * take
    if spare < 0 or take < 1:
        raise DataError(
            f"Text '{text.name}' has {len(ids):,} tokens, but {samples} windows of {length} "
            f"need {samples * take:,}; ask for fewer or shorter windows, or give a longer text."
        )
    generator = torch.Generator().manual_seed(seed)
    gaps = torch.randint(0, spare + 1, (samples,), generator=generator).sort().values
    starts = gaps + torch.arange(samples) * take  # (samples,), at least `take` apart
    starts = starts[torch.randperm(samples, generator=generator)]
    return _with_start(ids[starts[:, None] + torch.arange(take)], start)


def evaluation_windows(
    tokenizer: Any,
    text: Text,
    *,
    protocol: str = WORKBENCH,
    window: int | None = None,
    tokens: int | None = None,
) -> LongTensor:
    """Windows to measure perplexity on, cut from the beginning of a text as a protocol does it.

    Args:
        window: tokens in each, or None for the protocol's.
        tokens: in all, a part of a window left out; None for as many as the protocol takes of this text.

    Returns:
        Token ids, (windows, window).

    Raises:
        DataError: the text has fewer tokens.
    """
    usual = PROTOCOLS[protocol]
    length = window or usual.window
    windows = consecutive_windows(
        tokenizer, text, window=length, tokens=tokens or usual.tokens, stream=usual.stream
    )
    if tokens is not None and len(windows) < tokens // length:
        raise DataError(
            f"Text '{text.name}' has {len(_tokenised(tokenizer, text, usual.stream)):,} tokens, enough for "
            f"{len(windows)} windows of {length}, but {tokens:,} tokens were asked for; ask for "
            f"{len(windows) * length:,} or fewer, or give a longer text."
        )
    return windows


def consecutive_windows(
    tokenizer: Any, text: Text, *, window: int, tokens: int | None = None, stream: bool = False
) -> LongTensor:
    """Cut a text into windows from its beginning: `tokens` in all, or as many as it has.

    Args:
        tokens: None for the whole text.
        stream: whether the text is cut as it is tokenised, with one begin-of-text token at most, as
            LLM-Pruner and NutePrune do it; otherwise each window has one, and it counts.

    Returns:
        Token ids, (windows, window).

    Raises:
        DataError: the text has no whole window.
    """
    ids, start = _tokenised(tokenizer, text, stream), [] if stream else _start_tokens(tokenizer)
    take = window - len(start)
    count = len(ids) // take if take > 0 else 0
    if tokens is not None:
        count = min(count, tokens // window)
    if count < 1:
        raise DataError(
            f"Text '{text.name}' has {len(ids):,} tokens, but one window is {window}"
            f"{'' if tokens is None else f' and {tokens:,} were asked for'}; "
            "take a shorter window or a longer text."
        )
    return _with_start(ids[: count * take].view(count, take), start)


def _with_start(windows: torch.Tensor, start: list[int]) -> LongTensor:
    head = torch.tensor(start, dtype=torch.long).expand(len(windows), -1)
    return torch.cat([head, windows], dim=1)  # type: ignore[return-value]


def _tokenised(tokenizer: Any, text: Text, special: bool = False) -> LongTensor:
    """All token ids of a text, (tokens,); tokenised once per tokenizer.

    Args:
        special: with what the tokenizer puts before and after any text.
    """
    by_hash = _tokens.setdefault(tokenizer, {})
    if (text.sha256, special) not in by_hash:
        ids = tokenizer(_templated(tokenizer, text), add_special_tokens=special, verbose=False)["input_ids"]
        by_hash[text.sha256, special] = torch.tensor(ids, dtype=torch.long)  # type: ignore[assignment]
    return by_hash[text.sha256, special]


def _templated(tokenizer: Any, text: Text) -> str:
    """The text, and conversations as the tokenizer's template writes them, if it has one."""
    if not text.chats or not getattr(tokenizer, "chat_template", None):
        return text.text
    from jinja2 import TemplateError

    parts = list[str]()
    for number, chat in enumerate(text.chats, 1):
        try:
            parts.append(tokenizer.apply_chat_template(list(chat), tokenize=False))
        except TemplateError as error:
            raise DataError(
                f"{text.name}, conversation {number}: the tokenizer's chat template refuses it ({error}); "
                "give the text in a column of its own."
            ) from error
    return "\n".join(parts)


def _start_tokens(tokenizer: Any) -> list[int]:
    """The token that the tokenizer puts before any text; models trained with it fail without it."""
    ids = list(tokenizer("")["input_ids"])
    return ids[:1] if ids and ids[0] == tokenizer.bos_token_id else []
