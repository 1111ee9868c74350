"""How many parameters go when units stay with a given probability: Eq. 3, counted as `core.plan` counts.

What is left of a parameter is the product, over its dimensions, of how many indices stay, so a row and a
column that cross are never counted twice. Under grouped-query attention a key-value unit stays as long as
one of its query heads does: its probability to go is the product of theirs. With probabilities of 0 and 1
the result is what `core.plan.cost` counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.graph.records import Graph, Group, Member
from core.plan.cost import params_in

Width = tuple[str, int, int, float]  # parameter, dim, column, indices per unit


class Budget:
    """Expected sparsity of gated groups.

    Args:
        groups: the gated groups, in the order of their gates.

    Attributes:
        params: parameters in scope: what sparsity is a fraction of.
    """

    def __init__(self, graph: Graph, groups: Sequence[Group]) -> None:
        self.params = params_in(graph, list(groups))
        shared = [group for group in groups if group.parent is not None]
        self._columns = len(groups) + len(shared)
        # The units of the gated groups first, then those of their parents.
        self._column_of = _repeated([group.units for group in groups], 0)
        self._parent_column_of = _repeated([graph.group(str(g.parent)).units for g in shared], len(groups))
        self._heads, self._parent_of = _heads(graph, groups)
        widths = [w for column, group in enumerate(groups) for w in _widths(graph, group.members, column)]
        for column, group in enumerate(shared, start=len(groups)):
            widths += _shared_widths(graph, group, column)
        self._sizes, self._widths = _tables(graph, widths, self._columns)

    def sparsity(self, stay: Tensor) -> Tensor:
        """Expected sparsity when units stay with probability `stay`, (units of all groups,); a scalar."""
        return self.removed(stay) / self.params

    def removed(self, stay: Tensor) -> Tensor:
        """Expected number of parameters that go, float64; a scalar, on the CPU, with gradient."""
        go = 1.0 - stay.double().cpu()
        column_of = self._column_of
        if len(self._heads):
            last = torch.ones(len(self._parent_column_of), dtype=torch.float64)
            last = last.scatter_reduce(0, self._parent_of, go[self._heads], "prod")  # (key-value units,)
            go, column_of = torch.cat([go, last]), torch.cat([column_of, self._parent_column_of])
        gone = torch.zeros(self._columns, dtype=torch.float64).index_add(0, column_of, go)  # (columns,)
        left = self._sizes - self._widths @ gone  # (parameters, dims)
        return self._sizes.prod(dim=1).sum() - left.prod(dim=1).sum()


def _repeated(counts: Sequence[int], first: int) -> Tensor:
    return torch.repeat_interleave(torch.arange(first, first + len(counts)), torch.tensor(counts).long())


def _heads(graph: Graph, groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
    """Gates of units with a parent, and the number of the parent's unit among all parents' units."""
    heads: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    parents: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    gate = number = 0
    for group in groups:
        if group.parent is not None:
            heads.append(np.arange(gate, gate + group.units))
            parents.append(number + np.asarray(group.parent_unit))
            number += graph.group(group.parent).units
        gate += group.units
    return torch.from_numpy(np.concatenate(heads)), torch.from_numpy(np.concatenate(parents))


def _widths(graph: Graph, members: Sequence[Member], column: int) -> list[Width]:
    return [(m.parameter, m.dim, column, m.width / _experts(graph, m)) for m in members]


def _experts(graph: Graph, member: Member) -> int:
    """A slice of a stack of experts counts for one of them."""
    return 1 if member.at is None else graph.parameters[member.parameter].shape[0]


def _shared_widths(graph: Graph, group: Group, column: int) -> list[Width]:
    """What a key-value unit owns besides the slices of its query heads, which it lists too."""
    own = {(member.parameter, member.dim): member.index() for member in group.members}
    widths = []
    for member in graph.group(str(group.parent)).members:
        again = np.isin(member.index(), own.get((member.parameter, member.dim), ()))
        width = member.width - int(again[0].sum())
        widths.append((member.parameter, member.dim, column, width / _experts(graph, member)))
    return widths


def _tables(graph: Graph, widths: Sequence[Width], columns: int) -> tuple[Tensor, Tensor]:
    """Sizes of every touched parameter, (parameters, dims), and indices a unit takes, (…, dims, columns)."""
    names = list(dict.fromkeys(name for name, *_ in widths))
    dims = max((len(graph.parameters[name].shape) for name in names), default=1)
    sizes = torch.ones(len(names), dims, dtype=torch.float64)
    table = torch.zeros(len(names), dims, columns, dtype=torch.float64)
    for row, name in enumerate(names):
        shape = graph.parameters[name].shape
        sizes[row, : len(shape)] = torch.tensor(shape, dtype=torch.float64)
    for name, dim, column, width in widths:
        table[names.index(name), dim, column] += width
    return sizes, table
