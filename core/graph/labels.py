"""Channel labels and what is known about them.

Every index of every parameter dimension gets a label, an integer from 1 on; 0 means "no channel".
Where two labels meet in an operation they are *tied*:

- one to one: they go together (union-find);
- one to many: the one is shared by the many and goes when the last of them goes, as a key channel goes
  with its query heads, or a norm weight over head_dim with all heads;
- many to many: they all go together, which is the cautious reading.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

Ints = NDArray[np.int64]


def unique_rows(rows: Ints) -> tuple[Ints, Ints]:
    """The distinct rows in the order in which they first stand, and which of them each row is."""
    if len(rows) and (rows == rows[:1]).all():
        return rows[:1], np.zeros(len(rows), dtype=np.int64)
    # Sorting hashes instead of rows is a hundred times faster; the result is checked for collisions.
    factors = np.random.default_rng(0).integers(1, 1 << 62, rows.shape[1], dtype=np.int64)
    _, first, which = np.unique((rows * factors).sum(axis=1), return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    distinct, which = rows[first[order]], rank[which.ravel()]
    if not (distinct[which] == rows).all():
        distinct, which = np.unique(rows, axis=0, return_inverse=True)
    return distinct, which.ravel()


@dataclass(frozen=True)
class Product:
    """Two activations multiplied over their channels: query times key.

    Attributes:
        scores: the fresh label of each head, (heads,).
        left, right: the labels contracted into it, (heads, head_dim).
    """

    scores: Ints
    left: Ints
    right: Ints
    module: str
    node: int


@dataclass(frozen=True)
class Mixture:
    """Values averaged with probabilities: `out[i]` is channel `value[i]` as head `head[i]` saw it."""

    out: Ints
    head: Ints
    value: Ints


@dataclass(frozen=True)
class Across:
    """An operation that looks across channels, so that a channel cannot go unnoticed.

    Attributes:
        lines: the labels that were looked at together, (lines, channels).
        kind: `rms`, `mean`, `variance`, `length`, `softmax`, `choice`, `constant`, `grid` or `unknown`.
        what: the operation, for people to read.
        shape: for a `grid`, the dimensions the channels were laid out in.
    """

    lines: Ints
    kind: str
    module: str
    what: str
    shape: tuple[int, ...] = ()


@dataclass
class LabelStore:
    """All labels: whose they are, which go together, which are shared by others.

    Attributes:
        first: (parameter, dim) -> its first label; the others follow in order.
        roles: (parameter, dim) -> how that dimension is used: `in`, `out`, `vector`, `embedding`,
            `lookup` (vocabulary rows) or `stack` (one slice per expert).
        shared: pairs (centre, leaf): the centre goes when its last leaf goes.
        lent: pairs (label of a parameter, label of an activation) that met one to one, with module and
            operation.
    """

    first: dict[tuple[str, int], int] = field(default_factory=dict)
    sizes: dict[tuple[str, int], int] = field(default_factory=dict)
    roles: dict[tuple[str, int], str] = field(default_factory=dict)
    products: list[Product] = field(default_factory=list)
    mixtures: list[Mixture] = field(default_factory=list)
    across: list[Across] = field(default_factory=list)
    shared: list[Ints] = field(default_factory=list)
    lent: list[tuple[Ints, str, str]] = field(default_factory=list)
    _roots: Ints = field(default_factory=lambda: np.zeros(1, dtype=np.int64))

    @property
    def total(self) -> int:
        """One more than the highest label."""
        return len(self._roots)

    def fresh(self, count: int) -> Ints:
        """New labels that belong to no parameter, (count,)."""
        start = len(self._roots)
        new = np.arange(start, start + count, dtype=np.int64)
        self._roots = np.concatenate([self._roots, new])
        return new

    def of_parameter(self, name: str, dim: int, size: int) -> Ints:
        """The labels of one dimension of a parameter, (size,)."""
        key = (name, dim)
        if key not in self.first:
            self.first[key] = int(self.fresh(size)[0]) if size else len(self._roots)
            self.sizes[key] = size
        start = self.first[key]
        return np.arange(start, start + size, dtype=np.int64)

    def use(self, name: str, dim: int, role: str) -> None:
        """Remember how a dimension is used. A lookup says more than the matrix product of a tied head."""
        current = self.roles.get((name, dim))
        if current is None or role in ("embedding", "lookup", "stack"):
            self.roles[name, dim] = role

    def find(self, labels: Ints) -> Ints:
        """The class each label belongs to, named by one of its members; 0 stays 0."""
        classes: Ints = self._roots[labels]
        return classes

    def tie(
        self, left: Ints, right: Ints, vector: Ints | None = None, where: tuple[str, str] = ("", "")
    ) -> Ints:
        """Tie labels that meet, position by position.

        Args:
            left, right: equally shaped; pairs with a 0 in them say nothing.
            vector: labels of a parameter that is applied to activations. It may be applied elsewhere too,
                so even one to one it is shared; it goes along if all of that is one class in the end.
            where: the module and the operation.

        Returns:
            The labels that turned out to be shared by several others, sorted.
        """
        pairs = self._pairs(left.ravel(), right.ravel())
        # Degrees are those of the labels, not of their classes: a class that stands for several channels
        # of the same value is no broadcast.
        labels, ends = np.unique(pairs, return_inverse=True)
        ends = ends.reshape(pairs.shape)
        degree = np.bincount(ends.ravel(), minlength=len(labels))[ends]  # (pairs, 2)
        star = (degree.min(axis=1, initial=len(pairs) + 1) == 1) & (degree.max(axis=1, initial=0) > 1)
        # A star whose centre also meets a label that meets others is no star: all of it is united.
        tangled = np.unique(ends[degree.min(axis=1, initial=len(pairs) + 1) > 1])
        star &= ~np.isin(ends, tangled).any(axis=1)
        lent = degree.max(axis=1, initial=0) == 1 if vector is not None else np.zeros(len(pairs), dtype=bool)
        if vector is not None and lent.any():
            flip = np.isin(pairs[lent, 1], vector)
            self.shared.append(np.where(flip[:, None], pairs[lent][:, ::-1], pairs[lent]))
            self.lent.append((self.shared[-1], *where))
        self._unite(self.find(pairs[~star & ~lent]))
        centre_first = degree[star, 0] > degree[star, 1]
        stars = np.where(centre_first[:, None], pairs[star], pairs[star][:, ::-1])
        if len(stars):
            self.shared.append(stars)
        return np.unique(stars[:, 0])

    def owners(self, units: list[Ints]) -> Ints:
        """For every class the unit it belongs to, or -1, (total,).

        Args:
            units: the classes of each unit; no class in two of them.
        """
        owner = np.full(self.total, -1, dtype=np.int64)
        if units:
            owner[np.concatenate(units)] = np.repeat(np.arange(len(units)), [len(unit) for unit in units])
        return owner

    def settle(self) -> None:
        """Finish: a vector that several channels still share is a fixed number to each of them."""
        self.shares()
        for pairs, module, what in self.lent:
            apart = self.find(pairs[:, 0]) != self.find(pairs[:, 1])
            if apart.any():
                self.across.append(Across(pairs[apart, 1][None], "constant", module, what))

    def unite(self, left: Ints, right: Ints) -> None:
        """Put labels into one class, pair by pair, whatever else they meet."""
        self._unite(self._pairs(self.find(left.ravel()), self.find(right.ravel())))

    def shares(self) -> Ints:
        """All (centre, leaf) pairs of classes, (pairs, 2); a centre with one leaf was united with it."""
        while True:
            if not self.shared:
                return np.empty((0, 2), dtype=np.int64)
            stars = np.unique(self.find(np.concatenate(self.shared)), axis=0)
            stars = stars[(stars[:, 0] != stars[:, 1]) & (stars[:, 1] != 0)]
            centres, counts = np.unique(stars[:, 0], return_counts=True)
            single = np.isin(stars[:, 0], centres[counts == 1])
            if not single.any():
                return stars
            self._unite(stars[single])

    def _pairs(self, left: Ints, right: Ints) -> Ints:
        """The distinct unordered pairs of different labels, (pairs, 2)."""
        met = (left != 0) & (right != 0) & (left != right)
        low, high = np.minimum(left[met], right[met]), np.maximum(left[met], right[met])
        codes = np.unique(low * self.total + high)
        return np.stack(np.divmod(codes, self.total), axis=1)

    def _unite(self, pairs: Ints) -> None:
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        if not len(pairs):
            return
        classes, ends = np.unique(pairs, return_inverse=True)
        ends = ends.reshape(pairs.shape)
        edges = coo_matrix(
            (np.ones(len(pairs), dtype=bool), (ends[:, 0], ends[:, 1])), shape=(len(classes),) * 2
        )
        _, component = connected_components(edges, directed=False)
        lowest = np.full(component.max() + 1, np.iinfo(np.int64).max, dtype=np.int64)
        np.minimum.at(lowest, component, classes)
        table = np.arange(len(self._roots), dtype=np.int64)
        table[classes] = lowest[component]
        self._roots = table[self._roots]


def compact(labels: Tensor, keep: tuple[int, ...] = ()) -> Tensor:
    """Drop the copies an expanded plane holds: size 1 along every expanded dimension not in `keep`."""
    for dim in range(labels.dim()):
        if dim not in keep and labels.stride(dim) == 0 and labels.shape[dim] > 1:
            labels = labels.narrow(dim, 0, 1)
    return labels


def varies(labels: Tensor, dim: int) -> bool:
    """Whether the labels change along this dimension."""
    if labels.shape[dim] <= 1 or labels.stride(dim) == 0:
        return False
    labels = compact(labels)
    return bool((labels != labels.narrow(dim, 0, 1)).any())


def rows_along(labels: Tensor, dims: tuple[int, ...]) -> Ints:
    """The distinct lines of labels along `dims`, (lines, channels)."""
    dims = tuple(dim % labels.dim() for dim in dims)
    labels = compact(labels, keep=dims)
    others = [dim for dim in range(labels.dim()) if dim not in dims]
    length = int(np.prod([labels.shape[dim] for dim in dims]))
    lines = labels.permute(*others, *dims).reshape(-1, length)
    return unique_rows(lines.numpy())[0]
