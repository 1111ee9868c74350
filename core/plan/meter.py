"""What goes with the first units of every group: fast enough to search for a target with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from core.graph.records import Graph, Group
from core.plan.cost import holds_keys
from core.plan.records import KV_BITS

#: group id -> how many of its units go, the first in its order; of a group that is not named, none.
Counts = dict[str, int]
#: What a parameter takes of a quantity: its name, and its shape.
Takes = Callable[[str, Sequence[int]], float]


@dataclass(frozen=True)
class _Slice:
    """Part of a dimension: `width` indices per unit, `taken[n]` units of it once n of `group` are gone."""

    width: int
    taken: NDArray[np.int64]
    group: str


class Meter:
    """Counts what goes with the first n units of every group's order, without index sets.

    Groups own disjoint indices along a dimension, so what stays of it is a subtraction. Only a
    key-value group lists its query heads' slices too; those are counted with the group that is cut.
    """

    def __init__(self, graph: Graph, orders: Mapping[str, NDArray[np.int64]]) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._slices: dict[str, dict[int, list[_Slice]]] = {}
        self._cached: list[_Slice] = []
        groups = graph.by_id
        children = {group.parent: group for group in graph.groups if group.parent is not None}
        for group_id, order in orders.items():
            for affected, taken in _affected(groups, children.get(group_id), groups[group_id], order):
                self._add(graph, groups[group_id], affected, taken)
                numbers = sum(a.head_dim + a.value_dim for a in graph.attentions if holds_keys(affected, a))
                if numbers:
                    self._cached.append(_Slice(numbers, taken, group_id))

    def _add(self, graph: Graph, group: Group, affected: Group, taken: NDArray[np.int64]) -> None:
        own = {(member.parameter, member.dim): member.index() for member in group.members}
        for member in affected.members:
            if member.at:
                continue  # experts of one stack lose the same number each: the first stands for all
            width = member.width
            if affected.id != group.id:
                counted = np.isin(member.index(), own.get((member.parameter, member.dim), ()))
                width -= int(counted[0].sum())
            shape = graph.parameters[member.parameter].shape
            self._shapes[member.parameter] = shape
            part = _Slice(width, taken, group.id)
            self._slices.setdefault(member.parameter, {}).setdefault(member.dim, []).append(part)

    def removed(self, counts: Counts) -> int:
        """Parameters gone when `counts` units of each group are."""
        return round(self.saved(counts, lambda _, shape: prod(shape)))

    def saved(self, counts: Counts, takes: Takes) -> float:
        """What the parameters take less when `counts` units of each group are gone."""
        total = 0.0
        for name, dims in self._slices.items():
            left = list(self._shapes[name])
            for dim, parts in dims.items():
                left[dim] -= sum(part.width * int(part.taken[counts.get(part.group, 0)]) for part in parts)
            total += takes(name, self._shapes[name]) - takes(name, left)
        return total

    def cache_saved(self, counts: Counts) -> int:
        """Bytes of key-value cache per token gone when `counts` units of each group are."""
        heads = sum(part.width * int(part.taken[counts.get(part.group, 0)]) for part in self._cached)
        return heads * KV_BITS // 8


def _affected(
    groups: Mapping[str, Group], child: Group | None, group: Group, order: NDArray[np.int64]
) -> list[tuple[Group, NDArray[np.int64]]]:
    """The groups that lose units with `group`, each with how many after its first 0..units, (units + 1,)."""
    affected = [(group, np.arange(group.units + 1, dtype=np.int64))]
    rank = np.empty(group.units, dtype=np.int64)
    rank[order] = np.arange(1, group.units + 1)
    if group.parent is not None:
        parent = groups[group.parent]
        last = np.zeros(parent.units, dtype=np.int64)  # a parent's unit goes with the last of its children
        np.maximum.at(last, np.asarray(group.parent_unit), rank)
        affected.append((parent, _at_or_before(last, group.units)))
    if child is not None:
        affected.append((child, _at_or_before(rank[np.asarray(child.parent_unit)], group.units)))
    return affected


def _at_or_before(ranks: NDArray[np.int64], units: int) -> NDArray[np.int64]:
    return np.cumsum(np.bincount(ranks, minlength=units + 1)).astype(np.int64)
