"""One plan after another: the groups of what a plan left, and both plans as one against the first base.

Units that stay are counted anew, in the order they had. Nothing is traced again: what was coupled is coupled
as before, so families whose cut blocks could not be traced can be cut again, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from core.graph.records import Attention, Graph, Group, Member, Parameter
from core.plan.aligned import about_widths
from core.plan.blocks import without_blocks
from core.plan.cost import with_costs
from core.plan.heads import heads_left
from core.plan.records import PruningPlan, bias_places, cuts, implied, indices_gone
from core.spec.checks import parse_layers

#: Group id -> the old numbers of the units that stay, (units left,).
Staying = dict[str, NDArray[np.int64]]
Removed = dict[str, tuple[int, ...]]
_STEP = "Cut "
_UNEVEN = "its key-value heads are read by different numbers of query heads; prune query_head instead"


def what_is_left(graph: Graph, plan: PruningPlan, *, model: str = "") -> Graph:
    """The groups of the model that a plan leaves, their units counted anew.

    Args:
        graph: of the model that the plan was made for.
        model: how to call what is left; empty to leave the name.
    """
    graph, removed = without_blocks(graph, plan.removed)
    whole = _with_biases(graph, plan.biases)
    lines, gone = _Lines(whole, removed), cuts(whole, removed)
    stays = staying(graph, replace(plan, removed=removed))
    groups = tuple(_group(whole, group, lines, stays) for group in whole.groups)
    refused = [
        {"kind": group.kind, "layer": group.layer, "reason": group.reason}
        for group, before in zip(groups, whole.groups, strict=True)
        if before.prunable and not group.prunable
    ]
    return replace(
        whole,
        model=model or graph.model,
        parameters={name: _parameter(one, gone.get(name, {})) for name, one in whole.parameters.items()},
        groups=groups,
        attentions=tuple(_attention(graph, one, removed) for one in graph.attentions),
        not_prunable=(*graph.not_prunable, *refused),
    )


def staying(graph: Graph, plan: PruningPlan) -> Staying:
    """The units of every group that a plan leaves.

    Where heads have keys of their own, two groups name the same heads: what goes of the first goes of both.
    """
    full, lines = implied(graph, dict(plan.removed)), _Lines(graph, dict(plan.removed))
    stays: Staying = {}
    for group in graph.groups:
        gone = np.isin(np.arange(group.units), full.get(group.id, ()))
        if group.members and not gone.all():
            gone |= np.all([lines.of(member).all(axis=1) for member in group.members], axis=0)
        stays[group.id] = np.flatnonzero(~gone)
    return stays


def composed(graph: Graph, first: PruningPlan, then: PruningPlan) -> PruningPlan:
    """Two plans as one: `then` was made for what `first` left of the model that `graph` is of.

    Raises:
        NotPrunableError: together they leave nothing of a group.
    """
    stays, removed = staying(graph, first), dict(first.removed)
    for group, units in then.removed.items():
        removed[group] = tuple(sorted({*removed.get(group, ()), *stays[group][list(units)].tolist()}))
    kinds = tuple(dict.fromkeys((*first.kinds, *then.kinds)))
    places = bias_places(without_blocks(graph, removed)[0])  # what was added to a block goes with it
    biases = tuple(name for name in dict.fromkeys((*first.biases, *then.biases)) if name in places)
    plan = replace(
        then,
        removed=removed,
        model=first.model or graph.model,
        method=" + ".join(dict.fromkeys((*first.method.split(" + "), then.method))),
        scope=then.scope if then.scope == first.scope else "local",
        kinds=kinds,
        layers=then.layers if then.layers == first.layers else None,
        biases=biases,
        notes=(*_history(first, then), *about_widths(graph, removed, biases)),
    )
    counted = with_costs(graph, plan, _in_scope(graph, first, then))
    return replace(counted, target=counted.sparsity)


def _history(first: PruningPlan, then: PruningPlan) -> list[str]:
    """A note per cut, in order."""
    earlier = [note for note in first.notes if note.startswith(_STEP)]
    earlier = earlier or [f"{_STEP}1: {first.method}, {first.sparsity:.1%} of the block parameters in scope."]
    step = f"{_STEP}{len(earlier) + 1}: {then.method}, {then.sparsity:.1%} of those that were left."
    return [*earlier, step]


def _in_scope(graph: Graph, *plans: PruningPlan) -> list[Group]:
    """The prunable groups that at least one of these plans could take from."""
    depth, chosen = len(graph.layer_modules), list[Group]()
    inside = [set(parse_layers(plan.layers, depth)) if plan.layers else None for plan in plans]
    for group in graph.groups:
        scopes = zip(plans, inside, strict=True)
        if group.prunable and any(_covers(plan, layers, group) for plan, layers in scopes):
            chosen.append(group)
    return chosen


def _covers(plan: PruningPlan, layers: set[int] | None, group: Group) -> bool:
    return group.kind in plan.kinds and (layers is None or group.layer in layers)


class _Lines:
    """Which indices of every parameter go."""

    def __init__(self, graph: Graph, removed: Removed) -> None:
        self._graph, self._parts = graph, indices_gone(graph, removed)

    def gone(self, member: Member) -> NDArray[np.bool_]:
        """Whether each index along a member's dimension goes, (size,)."""
        mask = np.zeros(self._graph.parameters[member.parameter].shape[member.dim], dtype=np.bool_)
        parts = self._parts.get(member.parameter, {}).get(member.dim, {})
        for expert in {None, member.at} & set(parts):
            mask[parts[expert]] = True
        return mask

    def of(self, member: Member) -> NDArray[np.bool_]:
        """Whether each index of a member goes, (units, width)."""
        of_units: NDArray[np.bool_] = self.gone(member)[member.index()]
        return of_units


def _with_biases(graph: Graph, biases: Sequence[str]) -> Graph:
    """The same graph with the biases that a plan adds, which go along with the outputs of their matrices."""
    if not biases:
        return graph
    places = {name: place for name, place in bias_places(graph).items() if name in biases}
    parameters = dict(graph.parameters)
    by_matrix = {(place.weight, place.dim): name for name, place in places.items()}
    for name, place in places.items():
        matrix = graph.parameters[place.weight]
        parameters[name] = Parameter((matrix.shape[place.dim],), 0.0, matrix.module, matrix.layer)
    groups = []
    for group in graph.groups:
        added = [
            replace(member, parameter=by_matrix[member.parameter, member.dim], dim=0, role="vector")
            for member in group.members
            if (member.parameter, member.dim) in by_matrix
        ]
        groups.append(replace(group, members=(*group.members, *added)))
    return replace(graph, parameters=parameters, groups=tuple(groups))


def _parameter(parameter: Parameter, gone: dict[int, NDArray[np.int64]]) -> Parameter:
    shape = [size - (gone[dim].shape[-1] if dim in gone else 0) for dim, size in enumerate(parameter.shape)]
    return replace(parameter, shape=tuple(shape))


def _group(graph: Graph, group: Group, lines: _Lines, stays: Staying) -> Group:
    """What is left of a group; it is refused where its units are not alike any more."""
    own = stays[group.id]
    rows = [_rows(member, lines, own) for member in group.members]
    uneven = any(row is None for row in rows)
    if (
        uneven
    ):  # a key-value unit lists the slices of its query heads, too, which say themselves what they own
        children = [child for child in graph.groups if child.parent == group.id]
        rows = [_rows(member, lines, own, children) for member in group.members]
    members = tuple(
        replace(Member.of(member.parameter, member.dim, member.role, index), at=member.at)
        for member, index in zip(group.members, rows, strict=True)
        if index is not None and index.size
    )
    parents = np.asarray(group.parent_unit, dtype=np.int64)[own] if group.parent else ()
    left = np.searchsorted(stays[group.parent], parents).tolist() if group.parent else ()
    refused = uneven and group.prunable
    dropped = _owners(group.members) - _owners(members)
    return replace(
        group,
        units=len(own),
        members=members,
        norms=tuple(norm for norm in group.norms if norm.module not in dropped),
        parent_unit=tuple(left),
        prunable=group.prunable and not uneven,
        reason=_UNEVEN if refused else group.reason,
    )


def _owners(members: Sequence[Member]) -> set[str]:
    return {member.parameter.rpartition(".")[0] for member in members}


def _rows(
    member: Member, lines: _Lines, units: NDArray[np.int64], without: Sequence[Group] = ()
) -> NDArray[np.int64] | None:
    """A member's indices that stay, as they are numbered then, (units, width); None if units differ in width.

    Args:
        without: groups whose slices are left out.
    """
    index, gone = member.index()[units], lines.gone(member)
    keep = ~gone[index]
    for other in (one for group in without for one in group.members):
        if (other.parameter, other.dim, other.at) == (member.parameter, member.dim, member.at):
            keep &= ~np.isin(index, other.index())
    widths = np.unique(keep.sum(axis=1))
    if len(widths) > 1:
        return None
    numbers = np.cumsum(~gone) - 1
    rows: NDArray[np.int64] = numbers[index[keep]].reshape(len(units), -1)
    return rows


def _attention(graph: Graph, attention: Attention, removed: Removed) -> Attention:
    heads = heads_left(graph, attention, implied(graph, removed))
    if heads is None:
        return attention
    return replace(attention, heads=len(heads.query), kv_heads=len(heads.key_value))
