"""How far a model is from the dense one: the divergence of what they expect of the next token.

All that the dense model expects of a text is too much to keep: a number for every position and every token of
the vocabulary. Kept is all of it at some positions, spread evenly over the text, so that what is measured is
the divergence itself and no bound of it, and every model of a run is measured at the same positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.files import load_arrays, save_arrays

#: Numbers kept of a text: 128 MiB in float16, 1,365 positions of a vocabulary of 49,152.
_MOST = 2**26
#: Positions compared at a time.
_AT_ONCE = 64
#: Told the logits of some windows, (batch, window, vocabulary), and which the first of them is.
Listener = Callable[[Tensor, int], None]


@dataclass(frozen=True)
class Reference:
    """What the dense model expects at some positions of some windows.

    Attributes:
        places: window and position of each, (places, 2), in order.
        expected: log-probabilities of the next token, (places, vocabulary), in float16.
    """

    places: Int[Tensor, "places 2"]
    expected: Float[Tensor, "places vocabulary"]

    def save(self, path: Path) -> None:
        """Raises StorageError."""
        save_arrays(path, {"places": self.places.numpy(), "expected": self.expected.numpy()}, {})

    @classmethod
    def read(cls, path: Path) -> Reference:
        """Raises ArtifactError."""
        arrays, _ = load_arrays(path)
        return cls(torch.from_numpy(arrays["places"]), torch.from_numpy(arrays["expected"]))


def places_of(count: int, window: int, vocabulary: int) -> Int[Tensor, "places 2"]:
    """Positions spread evenly over what windows predict: all of them, or as many as are kept."""
    total = count * (window - 1)
    chosen = min(total, max(1, _MOST // vocabulary))
    flat = torch.from_numpy(np.arange(chosen) * total // chosen)
    return torch.stack([flat // (window - 1), flat % (window - 1)], dim=1)


class Keeping:
    """Listens to the dense model, and keeps what it expects.

    Args:
        count, window: of the windows that it reads.
    """

    def __init__(self, count: int, window: int, vocabulary: int) -> None:
        self._places, self._done = places_of(count, window, vocabulary), 0
        self._expected = torch.empty(len(self._places), vocabulary, dtype=torch.float16)

    def __call__(self, logits: Tensor, first: int) -> None:
        for window, at in _within(self._places, first, len(logits)):
            self._expected[self._done] = logits[window, at].float().log_softmax(dim=-1)
            self._done += 1

    def reference(self) -> Reference:
        """What was kept of all windows."""
        return Reference(self._places, self._expected)


class Comparing:
    """Listens to another model, and tells how far it is from the dense one."""

    def __init__(self, reference: Reference) -> None:
        self._reference, self._apart = reference, list[tuple[int, float]]()

    def __call__(self, logits: Tensor, first: int) -> None:
        places, done = _within(self._reference.places, first, len(logits)), len(self._apart)
        for start in range(0, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            ours = torch.stack([logits[window, at] for window, at in some]).float().log_softmax(dim=-1)
            rows = self._reference.expected[done + start : done + start + len(some)]
            # Rounded numbers add up to 1 only after this.
            theirs = rows.to(ours.device).float().log_softmax(dim=-1)
            apart = (theirs.exp() * (theirs - ours)).sum(dim=-1).tolist()
            self._apart += [(first + window, kl) for (window, _), kl in zip(some, apart, strict=True)]

    def by_window(self) -> tuple[float, ...]:
        """The mean divergence in every window that has a position, in nats."""
        windows: dict[int, list[float]] = {}
        for window, apart in self._apart:
            windows.setdefault(window, []).append(apart)
        return tuple(fmean(values) for values in windows.values())

    def mean(self) -> float:
        """The mean over all positions of KL(dense || this), in nats."""
        return fmean(apart for _, apart in self._apart)


def _within(places: Tensor, first: int, count: int) -> list[tuple[int, int]]:
    """Those of some windows, by the window's number among them and the position."""
    inside = places[(places[:, 0] >= first) & (places[:, 0] < first + count)]
    return [(window - first, at) for window, at in inside.tolist()]
