"""What the couplings are worth: every matrix cut by its own scores, as if it stood alone.

This is an experiment, not a way to prune: the matrices keep the sizes of the coupled cut, but what they
keep of each unit does not belong together. Nothing of it is ever saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from core.graph.records import Graph, Group, Member
from core.plan.records import implied
from core.surgery.masks import Removed, masked

#: A group -> every structure of it with one score per unit, (units,), estimated on that structure alone.
OwnScores = Callable[[Group], list[tuple[Member, NDArray[Any]]]]


@dataclass(frozen=True)
class Move:
    """Along a member's dimension, the indices `target` get the numbers that stand at `source`."""

    member: Member
    source: NDArray[np.int64]
    target: NDArray[np.int64]


@contextmanager
def without_dependency(model: nn.Module, graph: Graph, removed: Removed, own: OwnScores) -> Iterator[None]:
    """The model as it would be if every matrix had lost as many slices as in a plan, but its own weakest.

    While it lasts the slices of every matrix are moved so that the ones it keeps by its own scores
    stand, in order, where the plan keeps some; masks silence the rest. That computes exactly what
    cutting each matrix by itself gives. A bias goes with its matrix. Afterwards all is as it was.

    Args:
        removed: group id -> units that go; only how many counts here.
        own: scores of a group's structures, higher = keep.

    Source: LLM-Pruner, Section 4.3 and Table 6, "w/o dependency".
    """
    moves = list(_moves(graph, implied(graph, dict(removed)), own))
    done: list[Move] = []
    try:
        for move in moves:
            _apply(model, move.member, move.source, move.target)
            done.append(move)
        with masked(model, graph, removed):
            yield
    finally:
        for move in reversed(done):
            _apply(model, move.member, move.target, move.source)


def decouple(model: nn.Module, graph: Graph, removed: Removed, own: OwnScores) -> None:
    """Move slices as `without_dependency` does, for good: a cut by the plan then leaves its model."""
    for move in list(_moves(graph, implied(graph, dict(removed)), own)):
        _apply(model, move.member, move.source, move.target)


def _moves(graph: Graph, full: Mapping[str, tuple[int, ...]], own: OwnScores) -> Iterator[Move]:
    # Key-value groups come last: they list the slices of their query heads too, which have moved by then.
    groups = sorted((graph.group(name) for name in full), key=lambda group: group.parent is None)
    moved: set[tuple[str, int, int | None]] = set()
    for group in groups:
        ranks: dict[str, NDArray[np.int64]] = {}
        for member, scores in own(group):
            place = (member.parameter, member.dim, member.at)
            if member not in group.members or place in moved:
                continue
            moved.add(place)
            owner = member.parameter.rpartition(".")[0]
            rank = np.argsort(scores, kind="stable")
            if member.role == "vector":
                rank = ranks.get(owner, rank)
            elif member.role == "layer1":
                ranks[owner] = rank
            yield _move(member, full[group.id], rank)


def _move(member: Member, gone: tuple[int, ...], rank: NDArray[np.int64]) -> Move:
    """Bring the units that a structure keeps by itself to where the plan keeps units, in order."""
    index = member.index()  # (units, width)
    stay = np.setdiff1d(np.arange(len(index)), gone)
    own_stay, own_gone = np.sort(rank[len(gone) :]), np.sort(rank[: len(gone)])
    source, target = np.concatenate([own_stay, own_gone]), np.concatenate([stay, np.asarray(gone)])
    return Move(member, index[source].ravel(), index[target].ravel())


def _apply(model: nn.Module, member: Member, source: NDArray[np.int64], target: NDArray[np.int64]) -> None:
    values, dim = model.get_parameter(member.parameter).detach(), member.dim
    if member.at is not None:
        values, dim = values[member.at], dim - 1
    at, to = (torch.from_numpy(index).to(values.device) for index in (source, target))
    values.index_copy_(dim, to, values.index_select(dim, at))
