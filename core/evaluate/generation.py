"""Text from a model, token by token: greedy unless told otherwise, exact for a seed, stoppable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.errors import InputError
from core.models.tokens import context_length, last_only

#: Tokens of the prompt that are decoded with the answer, so that its first space is kept.
_CONTEXT = 4

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Generation:
    """A whole answer. `seconds` holds the reading of the prompt too; so does the rate."""

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
    """Yield the answer piece by piece, one piece a token; a piece is empty while a letter is incomplete.

    Args:
        temperature: 0 takes the likeliest token; above that, tokens are drawn with `seed`.
        top_p: draw from the likeliest tokens that hold this share of the probability.
        chat: put the prompt into the model's chat template.
        stop: asked before every token.

    Raises:
        InputError: no chat template, an empty or too long prompt, or a setting out of range.
    """
    _check(max_new_tokens, temperature, top_p)
    ids = prompt_ids(model, tokenizer, prompt, chat=chat)
    choose = _chooser(temperature, top_p, seed)
    return _pieces(tokenizer, ids, _new_tokens(model, tokenizer, ids, max_new_tokens, choose, stop))


def generate(
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
) -> Generation:
    """The whole answer at once; see `stream`."""
    began = time.perf_counter()
    pieces = list(
        stream(
            model, tokenizer, prompt, max_new_tokens=max_new_tokens, temperature=temperature,
            top_p=top_p, seed=seed, chat=chat, stop=stop,
        )
    )  # fmt: skip
    seconds = time.perf_counter() - began
    # The last piece is what was held back, not a token.
    return Generation("".join(pieces), len(pieces) - 1, seconds, (len(pieces) - 1) / seconds)


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
    """How the next token is taken from the logits, (vocabulary,)."""
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
    """Logits after the last of `ids`, (vocabulary,), and the cache; all ids are read if there is none yet."""
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
    """New token ids until the model ends its text, the context is full, or somebody stops it."""
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
    found = set(ends) if isinstance(ends, (list, tuple)) else {ends}
    return {int(end) for end in found | {tokenizer.eos_token_id} if end is not None}


def _pieces(tokenizer: Any, prompt: list[int], tokens: Iterator[int]) -> Iterator[str]:
    """What each token adds to the text, and at last what was held back."""

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
