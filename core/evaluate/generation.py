"""Let a model write text token by token: greedy by default, repeatable by seed, stoppable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.errors import InputError
from core.models.tokens import context_length, last_only

#: The last tokens of the prompt are decoded with the answer, so that its first space survives.
_CONTEXT = 4
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Generation:
    """A whole answer. `seconds` and the rate include the reading of the prompt."""

    text: str
    tokens: int
    seconds: float
    tokens_per_second: float


def stream(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    chat: bool = False,
    stop: Stop | None = None,
) -> Iterator[str]:
    """Yield the answer in pieces, one per token; a piece is empty while a letter is incomplete.

    A last piece holds what was held back, if anything.

    Args:
        temperature: 0 takes the likeliest token; above that, tokens are drawn with `seed`.
        top_p: draw from the likeliest tokens that hold this share of the probability.
        chat: put the prompt into the model's chat template.
        stop: called before every token; True ends the text.

    Raises:
        InputError: no chat template, an empty or too long prompt, or a setting out of range.
    """
    _check(max_new_tokens, temperature, top_p)
    ids = prompt_ids(model, tokenizer, prompt, chat=chat)
    choose = _chooser(temperature, top_p, seed)
    return _pieces(tokenizer, ids, _new_tokens(model, tokenizer, ids, max_new_tokens, choose, stop))


def generate(model: Any, tokenizer: Any, prompt: str, **settings: Any) -> Generation:
    """Return the whole answer at once; settings and errors are those of `stream`."""
    began = time.perf_counter()
    pieces = list(stream(model, tokenizer, prompt, **settings))
    seconds, tokens = time.perf_counter() - began, len(pieces) - 1  # the last piece is not a token
    return Generation("".join(pieces), tokens, seconds, tokens / seconds)


def prompt_ids(model: Any, tokenizer: Any, prompt: str, *, chat: bool) -> list[int]:
    """The prompt's token ids. Raises InputError."""
    if chat:
        if not getattr(tokenizer, "chat_template", None):
            raise InputError("This model has no chat template; type a plain prompt.")
        message = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        ids = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    else:
        ids = list(tokenizer(prompt, verbose=False)["input_ids"])
    if not ids:
        raise InputError("The prompt is empty; type a few words.")
    limit = context_length(model)
    if limit is not None and len(ids) >= limit:
        raise InputError(f"The prompt has {len(ids):,} tokens, but this model reads {limit:,}; shorten it.")
    return ids


def _check(max_new_tokens: int, temperature: float, top_p: float) -> None:
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be 1 or more, got {max_new_tokens}.")
    if not temperature >= 0:
        raise InputError(f"temperature must be 0 or more, got {temperature}; 0 is greedy.")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p must be in (0, 1], got {top_p}; 1 draws from all tokens.")


def _chooser(temperature: float, top_p: float, seed: int) -> Callable[[Tensor], int]:
    """The function that takes the next token from the logits, (vocabulary,)."""
    if temperature == 0:
        return lambda logits: int(logits.argmax())
    generator = torch.Generator().manual_seed(seed)

    def draw(logits: Tensor) -> int:
        # Drawn on the CPU, so that a seed means the same on every device.
        p, order = (logits.float().cpu() / temperature).softmax(-1).sort(descending=True, stable=True)
        p[p.cumsum(-1) - p >= top_p] = 0.0  # the likeliest token always stays
        return int(order[torch.multinomial(p, 1, generator=generator)])

    return draw


@torch.no_grad()
def _step(model: Any, ids: list[int], past: Any) -> tuple[Tensor, Any]:
    """Logits after the last of `ids`, (vocabulary,), and the cache; without a cache all ids are read."""
    fresh = ids if past is None else ids[-1:]
    out = model(
        input_ids=torch.tensor([fresh], device=next(model.parameters()).device),
        past_key_values=past,
        use_cache=True,
        **last_only(model),
    )
    return out.logits[0, -1], getattr(out, "past_key_values", None)


def _new_tokens(
    model: Any,
    tokenizer: Any,
    prompt: list[int],
    count: int,
    choose: Callable[[Tensor], int],
    stop: Stop | None,
) -> Iterator[int]:
    """Yield token ids until the model ends its text, the context is full, or `stop` says so."""
    ids, past, ends = list(prompt), None, _end_tokens(model, tokenizer)
    limit = context_length(model)
    for _ in range(count if limit is None else min(count, limit - len(prompt))):
        if stop is not None and stop():
            return
        logits, past = _step(model, ids, past)
        token = choose(logits)
        if token in ends:
            return
        ids.append(token)
        yield token


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = [*(ends if isinstance(ends, (list, tuple)) else [ends]), tokenizer.eos_token_id]
    return {int(id_) for id_ in ids if id_ is not None}


def _pieces(tokenizer: Any, prompt: list[int], tokens: Iterator[int]) -> Iterator[str]:
    """Yield what each token adds to the text, and at last what was held back."""

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    context, ids = prompt[-_CONTEXT:], list[int]()
    shown = len(decode(context))
    for token in tokens:
        ids.append(token)
        text = decode(context + ids)
        if text.endswith("\ufffd"):  # half of a letter: wait for the rest
            yield ""
            continue
        yield text[shown:]
        shown = max(shown, len(text))
    yield decode(context + ids)[shown:]
