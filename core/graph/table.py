"""From classes of labels to members of groups: which indices of which parameters a unit owns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.graph.labels import Ints, LabelStore
from core.graph.records import Member, Role

_ROLES: dict[str, Role] = {"in": "layer2", "out": "layer1", "vector": "vector", "embedding": "embedding"}
#: Members stand in the order in which a person reads them.
_ORDER = ("embedding", "layer1", "vector", "layer2", "router")
Key = tuple[str, int]


@dataclass(frozen=True)
class Layout:
    """Units whose members have the same shape, in order.

    Attributes:
        units: which of the units that were asked for, (units,).
        members: their part in each parameter dimension.
        private: parameters that belong to one unit as a whole, such as a norm module per head; they are in
            no member.
    """

    units: Ints
    members: tuple[Member, ...]
    private: tuple[str, ...] = ()


class Table:
    """All labels of parameters, sorted out by class."""

    def __init__(self, store: LabelStore) -> None:
        self.store = store
        self.shares = store.shares()
        by_leaf = self.shares[np.argsort(self.shares[:, 1], kind="stable")]
        self._centre, self._leaf = by_leaf[:, 0], by_leaf[:, 1]
        self._leaves = np.bincount(self._centre, minlength=store.total)
        vectors = {name for name, dim in store.first} - {name for name, dim in store.first if dim > 0}
        # A vector that is only joined to other values, such as an attention sink, was never met in a sum.
        used = {key: store.roles.get(key, "vector" if key[0] in vectors else "") for key in store.first}
        self.keys: list[Key] = [key for key in store.first if used[key] in _ROLES]
        self.roles = [_ROLES[used[key]] for key in self.keys]
        sizes = [store.sizes[key] for key in self.keys]
        starts = [store.first[key] for key in self.keys]
        self.key = np.repeat(np.arange(len(self.keys)), sizes)
        self.index = np.concatenate([np.arange(size) for size in [0, *sizes]]).astype(np.int64)
        self.labels = self.index + np.repeat(np.array(starts, dtype=np.int64), sizes)
        self.classes = store.find(self.labels)

    def of_key(self, key: Key) -> Ints:
        """The class of every index of one parameter dimension, (size,)."""
        return self.store.find(self.store.of_parameter(*key, self.store.sizes[key]))

    def makers(self, labels: Ints) -> tuple[str, ...]:
        """The matrices whose outputs have these labels, whatever class they are of by now."""
        keys = np.unique(self.key[np.isin(self.labels, labels)])
        return tuple(self.keys[key][0] for key in keys if self.roles[key] == "layer1")

    def closure(self, classes: Ints) -> Ints:
        """`classes` and every class that only they share."""
        closed = np.unique(classes)
        while True:
            low, high = np.searchsorted(self._leaf, closed), np.searchsorted(self._leaf, closed, side="right")
            rows = np.concatenate(
                [np.arange(a, b) for a, b in zip(low, high, strict=True) if b > a] or [low[:0]]
            )
            centres, inside = np.unique(self._centre[rows], return_counts=True)
            gone = centres[inside == self._leaves[centres]]
            new = np.setdiff1d(gone, closed)
            if not len(new):
                return closed
            closed = np.union1d(closed, new)

    def layouts(self, units: list[Ints]) -> list[Layout]:
        """Lay units out over the parameters; units of different shapes stand in different layouts.

        Args:
            units: the classes of each unit; no class in two of them.
        """
        owner = self.store.owners(units)[self.classes]
        rows = np.flatnonzero(owner >= 0)
        if not len(rows):
            return []
        keys, local = np.unique(self.key[rows], return_inverse=True)
        counts = np.zeros((len(units), len(keys)), dtype=np.int64)
        np.add.at(counts, (owner[rows], local), 1)
        alone = (np.count_nonzero(counts, axis=0) == 1) & (len(units) > 1)
        private = tuple(self.keys[int(k)][0] for k in keys[alone])
        counts[:, alone] = 0
        shapes, shape_of = np.unique(counts, axis=0, return_inverse=True)
        layouts = []
        for number, widths in enumerate(shapes):
            chosen = np.flatnonzero(shape_of.ravel() == number)
            if widths.any():
                members = [
                    self._member(int(k), rows[local == i], owner, chosen)
                    for i, k in enumerate(keys)
                    if widths[i]
                ]
                members.sort(key=lambda member: _ORDER.index(member.role))
                layouts.append(Layout(chosen, tuple(members), private))
        return sorted(layouts, key=lambda layout: int(layout.units[0]))

    def _member(self, key: int, rows: Ints, owner: Ints, units: Ints) -> Member:
        rows = rows[np.isin(owner[rows], units)]
        rows = rows[np.lexsort((self.index[rows], owner[rows]))]
        name, dim = self.keys[key]
        return Member.of(name, dim, self.roles[key], self.index[rows].reshape(len(units), -1))
