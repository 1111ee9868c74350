"""Which heads and widths of each layer a plan leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.graph.records import Attention, Graph


@dataclass(frozen=True)
class Heads:
    """The heads that stay in an attention block.

    Attributes:
        query, key_value: old numbers of the query heads that stay, and of the key-value heads.
        kv_index: for each query head that stays, which of the staying key-value heads it reads.
    """

    query: list[int]
    key_value: list[int]
    kv_index: list[int]

    @property
    def uniform(self) -> int:
        """Query heads per key-value head if `repeat_interleave` yields `kv_index`, else 0."""
        each, rest = divmod(len(self.query), len(self.key_value))
        expected = [kv for kv in range(len(self.key_value)) for _ in range(each)]
        return each if rest == 0 and self.kv_index == expected else 0


def heads_left(graph: Graph, attention: Attention, full: Mapping[str, tuple[int, ...]]) -> Heads | None:
    """Which heads of an attention block stay under a plan with its consequences, or None if all do."""
    by_kind = {g.kind: g for g in graph.of_kind("query_head", "kv_group") if g.layer == attention.layer}
    group = by_kind.get("query_head", by_kind.get("kv_group"))
    if group is None or not any(full.get(g.id) for g in by_kind.values()):
        return None
    if group.parent is None:  # every head has a key-value head of its own: both kinds name the same
        query = _stay(group.units, [unit for g in by_kind.values() for unit in full.get(g.id, ())])
        return Heads(query, query, list(range(len(query))))
    query = _stay(group.units, full.get(group.id, ()))
    key_value = _stay(graph.group(group.parent).units, full.get(group.parent, ()))
    return Heads(query, key_value, [key_value.index(group.parent_unit[head]) for head in query])


def _stay(units: int, gone: Sequence[int]) -> list[int]:
    """The numbers of the units that do not go."""
    return np.setdiff1d(np.arange(units), np.asarray(gone, dtype=np.int64)).tolist()
