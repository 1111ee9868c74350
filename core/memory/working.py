"""What each piece of work takes beside the weights, in bytes: estimates, checked against real runs."""

from __future__ import annotations

from collections.abc import Collection
from math import prod

from core.capture.names import DIVERGENCE, GRADIENTS, OVER_DATA, PER_SAMPLE
from core.capture.reading import FEW, Needed, reading
from core.errors import DataError
from core.memory.shapes import Shapes

#: Windows of perplexity at a time, their logits at most, and numbers kept of what the dense model expects.
_ROWS, _LOGITS, _EXPECTED = 8, 2**28, 2**26
#: Bytes of a float64, of a float32.
_DOUBLE, _SINGLE = 8, 4
#: Tokens of the short run that compares a cut layer, with what rounding does to it, in float64.
_PROBED = 5 * 32
#: Arrays as large as A'A while a matrix is refitted: sums of both parts, and what solving makes of them.
_OF_FIT = 8
#: What a way back needs, in what the matrices read and write: norms and products of their own come to that.
_BESIDE = 1.2
#: Of each layer: what leaves it, and what both of its halves write.
_OF_LAYER = 3


class Working:
    """What pieces of work take with a model of these shapes.

    Args:
        itemsize: bytes of a weight as the model holds it; free: bytes that are left beside the weights.
        cuda: whether it computes on a card, which has memory of its own.
    """

    def __init__(self, shapes: Shapes, itemsize: int, free: int, *, cuda: bool) -> None:
        self.shapes, self.itemsize, self.free, self.cuda = shapes, itemsize, free, cuda
        self.weights = shapes.numbers * itemsize

    def forward(self, tokens: int) -> int:
        """One layer's numbers while tokens go through without a way back."""
        return int(tokens * max(self.shapes.passed, default=0) * self.itemsize)

    def perplexity(self, window: int, tokens: int | None, *, refers: bool) -> int:
        """Logits of a batch of windows.

        Args:
            tokens: in all, None for all of a text.
            refers: whether what the dense model expects is kept, which is never on a card.
        """
        vocabulary, count = self.shapes.vocabulary, tokens or 2**30
        rows = max(1, min(_ROWS, _LOGITS // (window * max(1, vocabulary)), count // window))
        # In float16, and once more while it is written down.
        expected = 2 * 2 * min(_EXPECTED, count * vocabulary) if refers and not self.cuda else 0
        return rows * window * vocabulary * self.itemsize + self.forward(rows * window) + expected

    def benchmarks(self) -> int:
        """Logits of a batch of prompts of 512 tokens, and their logarithms in float32."""
        tokens = 512 * min(_ROWS, max(1, _LOGITS // (512 * self.shapes.vocabulary)))
        return tokens * self.shapes.vocabulary * (self.itemsize + _SINGLE) + self.forward(tokens)

    def attention(self, length: int) -> int:
        """Probabilities of every head in one layer for a few windows: their scores, softmax and copies."""
        return FEW * self.shapes.heads * length**2 * 4 * _SINGLE

    def capture(
        self, needs: Collection[str], names: Collection[str], windows: int, length: int, size: int | None
    ) -> int:
        """One pass over calibration text.

        Args:
            needs: statistics; names: the parameters whose gradients are taken.
            size: windows at a time, if it is given.
        """
        plain = self.attention(length) if DIVERGENCE in needs else 0
        if not GRADIENTS & set(needs):
            return plain + self.forward((size or FEW) * length)
        each, lasting = bool(PER_SAMPLE & set(needs)), len(set(OVER_DATA) & set(needs))
        window, sizes = self.backward(length), {name: prod(self.shapes.parameters[name]) for name in names}
        largest = max(sizes.values(), default=0) * (self.itemsize + 2 * _SINGLE)
        if not lasting:
            return plain + (1 if each else size or FEW) * window + largest
        kept = {name: _SINGLE * lasting * count for name, count in sizes.items()}
        try:
            plan = reading(
                windows, Needed(0 if each or windows == 1 else window, kept, self.free), each=each, size=size
            )
        except DataError:  # which the run itself will say; this is the least that it takes
            return plain + window + largest
        if plan.size == windows:
            return plain + windows * window + largest
        return plain + plan.size * window + largest + max(sum(kept[n] for n in part) for part in plan.sweeps)

    def backward(self, length: int) -> int:
        """What one window's way back needs of its way through: the matrices' own, and the logits."""
        inside = _BESIDE * sum(self.shapes.passed) * self.itemsize
        return int(length * (inside + 2 * _SINGLE * self.shapes.vocabulary))

    def layers_kept(self, tokens: int) -> int:
        """What leaves every layer, for passes that begin in the middle, and the logits of a batch."""
        kept = tokens * len(self.shapes.layers) * self.shapes.hidden * self.itemsize
        return kept + min(tokens, _ROWS * 256) * self.shapes.vocabulary * (self.itemsize + _SINGLE)

    def refit(self, windows: int, length: int) -> int:
        """Hidden states before and after a layer of both models, and the sums of its widest reader."""
        tokens = windows * length
        states = tokens * self.shapes.hidden * self.itemsize * (2 + _OF_LAYER)
        wide = max((pair for layer in self.shapes.readers for pair in layer), default=(0, 0))
        return (
            states
            + _OF_FIT * _DOUBLE * wide[0] ** 2
            + 4 * _DOUBLE * wide[0] * wide[1]
            + self.forward(FEW * length)
        )

    def cut(self) -> int:
        """One layer, or what stands outside of them, in float64 beside itself, with its short run."""
        ends = self.shapes.vocabulary * self.shapes.hidden
        wide = max([*self.shapes.in_layers, ends])
        return wide * _DOUBLE + _PROBED * (
            self.shapes.vocabulary * _DOUBLE + len(self.shapes.layers) * self.shapes.hidden * _DOUBLE
        )
