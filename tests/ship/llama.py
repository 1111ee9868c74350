"""A real llama.cpp, where there is one: what it makes of a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

llama_cpp: Any = pytest.importorskip(
    "cyllama.llama.llama_cpp", reason="no llama.cpp: pip install -r requirements-dev.txt"
)
llama_cpp.disable_logging()


class _Model(llama_cpp.LlamaModel):  # type: ignore[misc, name-defined]
    """The binding asks its own model for this, and it has none."""

    @property
    def n_vocab(self) -> int:
        return int(self.get_vocab().n_vocab)


class Llama:
    """A model that llama.cpp has loaded."""

    def __init__(self, path: Path, length: int = 128, threads: int = 1) -> None:
        self.model = _Model(str(path), llama_cpp.LlamaModelParams())
        settings = llama_cpp.LlamaContextParams()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = length
        settings.n_threads = settings.n_threads_batch = threads
        self.context = llama_cpp.LlamaContext(self.model, settings)
        self.vocabulary = self.model.get_vocab()

    def decode(self, ids: list[int], start: int = 0, *, every: bool = True) -> NDArray[np.float32]:
        """Logits at every place, or the last, (places, vocabulary), after those before `start`."""
        wanted = range(len(ids)) if every else range(len(ids) - 1, len(ids))
        batch = llama_cpp.LlamaBatch(n_tokens=len(ids), embd=0, n_seq_max=1)
        for place, token in enumerate(ids):
            batch.add(token, start + place, [0], place in wanted)
        self.context.decode(batch)
        return np.array([self.context.get_logits_ith(place) for place in wanted], dtype=np.float32)

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """The next tokens, each the likeliest."""
        tokens, logits = [], self.decode(ids)[-1]
        for place in range(len(ids), len(ids) + count):
            tokens.append(int(logits.argmax()))
            logits = self.decode([tokens[-1]], place)[-1]
        return tokens

    def tokens(self, text: str) -> list[int]:
        """A text without a begin token."""
        ids: list[int] = self.vocabulary.tokenize(text, False, False)
        return ids
