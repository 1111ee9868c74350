"""Query heads shared unevenly by key-value heads, laid out evenly: what llama.cpp and other servers read.

They know two numbers per layer, of query and of key-value heads, and take the quotient for all. A key-value
head with more query heads than that quotient is there twice, one with fewer gets query heads of zeros, whose
answers meet columns of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Slots:
    """An attention block with equally many query heads for each of its key-value heads.

    Attributes:
        queries: for each place of a query head, which of those that stay is put there; None for zeros.
        keys: for each place of a key-value head, which of those that stay is put there.
    """

    queries: tuple[int | None, ...]
    keys: tuple[int, ...]

    @property
    def extra(self) -> tuple[int, int]:
        """Query heads of zeros, and key-value heads that stand there once more."""
        return self.queries.count(None), len(self.keys) - len(set(self.keys))


def lay_out(kv_index: Sequence[int], sparing: str = "params") -> Slots:
    """Find the cheapest even layout of an attention block.

    Args:
        kv_index: for each query head that stays, the key-value head it reads; ascending. Empty: no attention.
        sparing: what to take little of, `params` in the file or `cache`; where two layouts take the same, the
            other decides.
    """
    if not kv_index:
        return Slots((), ())
    shared = [(key, list(heads)) for key, heads in groupby(range(len(kv_index)), key=kv_index.__getitem__)]

    def costs(each: int) -> tuple[int, int]:
        places = sum(-(-len(heads) // each) for _, heads in shared)
        numbers = places * (2 * each + 2)  # query and output rows, key and value rows, in heads
        return (numbers, places) if sparing == "params" else (places, numbers)

    each = min(range(1, max(len(heads) for _, heads in shared) + 1), key=costs)
    queries: list[int | None] = []
    keys: list[int] = []
    for key, heads in shared:
        for part in (heads[i : i + each] for i in range(0, len(heads), each)):
            queries += [*part, *[None] * (each - len(part))]
            keys.append(key)
    return Slots(tuple(queries), tuple(keys))
