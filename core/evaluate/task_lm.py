"""The model as lm-eval sees it: in its own wrapper, which is silent, counts, and refuses to cut prompts."""

from __future__ import annotations

import contextlib
import copy
import logging
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

from core.errors import InputError

#: On a CPU a batch of 512-token rows may have this many logits (1 GiB in float32), and this many rows.
_BATCH_ELEMENTS, _BATCH_TOKENS, _BATCH_ROWS = 2**28, 512, 8


def wrap(model: Any, tokenizer: Any, batch_size: int | str, *, truncate: bool) -> Any:
    """Wrap a model in memory in lm-eval's `HFLM`; the caller's tokenizer stays as it is.

    `auto` is lm-eval's own search where memory can run out gracefully (CUDA), else a size that fits.

    The wrapper counts answered requests in `.done` and calls `.report(done)` for each; `.truncated` counts
    prompts that lost their beginning, which happens only with `truncate`.
    """
    size: int | str = batch_size
    if batch_size == "auto" and model.device.type != "cuda":
        fitting = _BATCH_ELEMENTS // (_BATCH_TOKENS * len(tokenizer))
        size = max(1, min(_BATCH_ROWS, fitting))
    # lm-eval makes up a padding token where there is none
    own = copy.deepcopy(tokenizer) if tokenizer.pad_token is None else tokenizer
    lm = _wrapper()(pretrained=model, tokenizer=own, batch_size=size)
    lm.truncate = truncate
    return lm


@lru_cache(maxsize=1)
def _wrapper() -> Any:
    from lm_eval.models.huggingface import HFLM

    class Quiet(HFLM):
        """`HFLM` without progress bars of its own."""

        truncate = False
        truncated = 0
        done = 0
        report: Callable[[int], None] = staticmethod(lambda done: None)

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            # lm-eval calls this hook with every answer, which shows progress without wrapping anything
            self.cache_hook = self

        def add_partial(self, kind: str, request: Any, answer: Any) -> None:
            self.done += 1
            self.report(self.done)

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            answer = max(request.args[1].get("max_gen_toks", self.max_gen_toks) for request in requests)
            if answer >= self.max_length:
                raise _does_not_fit("answer may take", answer, self.max_length)
            return super().generate_until(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, **settings: Any) -> Any:
            # the last token is predicted, never read
            self.check([len(context) + len(continuation) - 1 for _, context, continuation in requests])
            answer = max((len(continuation) for *_, continuation in requests), default=0)
            if answer > self.max_length:
                raise _does_not_fit("answer needs", answer, self.max_length)
            return super()._loglikelihood_tokens(requests, disable_tqdm=True, **settings)

        def tok_batch_encode(
            self, strings: Any, padding_side: str = "left", left_truncate_len: Any = None, **settings: Any
        ) -> Any:
            ids, mask = super().tok_batch_encode(strings, padding_side=padding_side, **settings)
            room = left_truncate_len or ids.shape[1]
            self.check((mask.sum(dim=1) + self.max_length - room).tolist())
            return ids[:, -room:], mask[:, -room:]

        def check(self, lengths: list[int]) -> None:
            """Raise InputError if a prompt with its answer does not fit into the context."""
            longest = max(lengths, default=0)
            if longest > self.max_length and not self.truncate:
                raise _does_not_fit("prompt needs", longest, self.max_length)
            self.truncated += sum(length > self.max_length for length in lengths)

    return Quiet


def _does_not_fit(what: str, needed: int, has: int) -> InputError:
    return InputError(
        f"the longest {what} {needed:,} tokens of context, the model has {has:,}; "
        f"put fewer examples into the prompt, or leave this task out."
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval and datasets from printing: stdout goes to stderr, progress bars and warnings are off."""
    import datasets
    from lm_eval.api import task as lm_eval_task

    # lm-eval warns that it was given a model in memory, and that few-shot settings are overridden
    levels = {name: logging.getLogger(name).level for name in ("lm_eval", "datasets")}
    bars, building = datasets.is_progress_bar_enabled(), lm_eval_task.tqdm
    try:
        lm_eval_task.tqdm = partial(building, disable=True)
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        datasets.disable_progress_bars()
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        lm_eval_task.tqdm = building
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if bars:
            datasets.enable_progress_bars()
