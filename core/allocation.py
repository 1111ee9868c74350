"""Scores and a target -> a plan. Arithmetic on counts, so a preview of a 7B model is instant.

Local scope: every group gives the same fraction of its units. Fractions of a unit are rounded with
an offset of their own per layer, spread evenly, so that the roundings cancel over the model and no
end of it is favoured. The fraction is then solved for the target; the finest units (FFN channels)
take up what the coarse ones leave over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from core.errors import NotPrunableError, SpecError
from core.graph.records import Graph, Group
from core.plan import PruningPlan, params_in, with_costs
from core.registry import unknown
from core.spec import SCOPES, check_sparsity, parse_layers

Scores = Mapping[str, NDArray[np.floating]]
Counts = dict[str, int]
DEFAULT_KINDS = ("query_head", "ffn_channel")
_GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo one, are spread as evenly as can be


def allocate(
    graph: Graph,
    scores: Scores | None,
    *,
    sparsity: float,
    scope: str = "local",
    kinds: Sequence[str] = DEFAULT_KINDS,
    layers: str | None = None,
    method: str = "",
    model: str = "",
    dtype_bytes: int = 2,
) -> PruningPlan:
    """The units that go so that `sparsity` of the parameters in scope do, with the costs counted.

    Args:
        scores: group id -> one score per unit, higher = keep, (units,). None previews with equal
            scores: the lowest unit numbers go.
        sparsity: fraction of the parameters in the prunable groups in scope, in [0, 1).
        layers: `first:last`, last not included; None for all.

    Returns:
        A plan within one unit of the target, with at least one unit of every group left.

    Raises:
        SpecError: a sparsity, scope or layer range that does not exist.
        NotPrunableError: nothing to prune in scope, or the target is out of reach; says what is reachable.
    """
    check_sparsity(sparsity)
    if scope not in SCOPES:
        raise SpecError(str(unknown("scope", scope, list(SCOPES))))
    groups = groups_in_scope(graph, kinds, layers)
    orders = {group.id: removal_order(group, scores) for group in groups}
    meter = _Meter(graph, orders)
    total = params_in(graph, groups)
    counts = _solve(groups, meter, sparsity * total, total)
    removed = {group.id: tuple(sorted(orders[group.id][: counts[group.id]].tolist())) for group in groups}
    plan = PruningPlan(
        removed={group: units for group, units in removed.items() if units},
        model=model or graph.model, method=method, target=sparsity, scope=scope, kinds=tuple(kinds),
        layers=layers, notes=_notes(graph, kinds),
    )  # fmt: skip
    return with_costs(graph, plan, groups, dtype_bytes)


def groups_in_scope(graph: Graph, kinds: Sequence[str], layers: str | None = None) -> list[Group]:
    """The prunable groups of these kinds in these layers.

    Raises:
        SpecError: kinds that exclude each other, or layers that do not exist.
        NotPrunableError: there is none; says which kinds the model has, or why they cannot go.
    """
    if {"query_head", "kv_group"} <= set(kinds):
        raise SpecError(
            "kinds must be either query_head or kv_group, since both own the same heads; got both."
        )
    inside = parse_layers(layers, len(graph.layer_modules)) if layers is not None else None
    if inside is not None and "residual_channel" in kinds:
        raise SpecError(
            "residual channels run through all layers; leave layers out, or residual_channel out of kinds."
        )
    for kind in kinds:
        _require_kind(graph, kind)
    chosen = [group for group in graph.of_kind(*kinds) if group.prunable]
    return [group for group in chosen if inside is None or group.layer in inside]


def _require_kind(graph: Graph, kind: str) -> None:
    found = graph.of_kind(kind)
    if any(group.prunable for group in found):
        return
    reasons = {group.reason for group in found} | {
        e["reason"] for e in graph.not_prunable if e["kind"] == kind
    }
    offered = sorted({group.kind for group in graph.groups if group.prunable})
    why = f": {'; '.join(sorted(str(reason) for reason in reasons))}" if reasons else ""
    raise NotPrunableError(
        f"{graph.model} has no {kind} that can be pruned{why}. "
        f"It has {', '.join(offered) or 'nothing to prune'}."
    )


def _notes(graph: Graph, kinds: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{g.id} is left out: {g.reason}" for g in graph.of_kind(*kinds) if not g.prunable)


def removal_order(group: Group, scores: Scores | None) -> NDArray[np.int64]:
    """Unit numbers in the order in which they go: lowest score first, ties by number, (units,)."""
    if scores is None:
        return np.arange(group.units, dtype=np.int64)
    if group.id not in scores:
        raise NotPrunableError(f"There are no scores for {group.id}; score the kinds that shall be pruned.")
    values = np.asarray(scores[group.id])
    if values.shape != (group.units,) or not np.isfinite(values).all():
        raise NotPrunableError(
            f"{group.id} needs {group.units} finite scores, got {values.size} of which "
            f"{int(np.isfinite(values).sum())} are finite; try float32 if the model overflows."
        )
    return np.argsort(values, kind="stable").astype(np.int64)


@dataclass(frozen=True)
class _Slice:
    """Part of a dimension: `width` indices a unit, `taken[n]` units of it once n of `group` are gone."""

    width: int
    taken: NDArray[np.int64]
    group: str


class _Meter:
    """Counts the parameters that go with the first n units of every group's order, without index sets.

    Groups own disjoint indices along a dimension, so what stays of it is a subtraction. Only a
    key-value group lists its query heads' slices too; those are counted with the group that is cut.
    """

    def __init__(self, graph: Graph, orders: Mapping[str, NDArray[np.int64]]) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._slices: dict[str, dict[int, list[_Slice]]] = {}
        groups = graph.by_id
        children = {group.parent: group for group in graph.groups if group.parent is not None}
        for group_id, order in orders.items():
            for affected, taken in _affected(groups, children.get(group_id), groups[group_id], order):
                self._add(graph, groups[group_id], affected, taken)

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
        total = 0
        for name, dims in self._slices.items():
            left = list(self._shapes[name])
            for dim, parts in dims.items():
                left[dim] -= sum(part.width * int(part.taken[counts[part.group]]) for part in parts)
            total += prod(self._shapes[name]) - prod(left)
        return total


def _affected(
    groups: Mapping[str, Group], child: Group | None, group: Group, order: NDArray[np.int64]
) -> list[tuple[Group, NDArray[np.int64]]]:
    """The groups that lose units with `group`, and how many after its first n: 0..units, (units + 1,)."""
    found = [(group, np.arange(group.units + 1, dtype=np.int64))]
    rank = np.empty(group.units, dtype=np.int64)
    rank[order] = np.arange(1, group.units + 1)
    if group.parent is not None:
        parent = groups[group.parent]
        last = np.zeros(parent.units, dtype=np.int64)  # a parent's unit goes with the last of its children
        np.maximum.at(last, np.asarray(group.parent_unit), rank)
        found.append((parent, _at_or_before(last, group.units)))
    if child is not None:
        found.append((child, _at_or_before(rank[np.asarray(child.parent_unit)], group.units)))
    return found


def _at_or_before(when: NDArray[np.int64], units: int) -> NDArray[np.int64]:
    return np.cumsum(np.bincount(when, minlength=units + 1)).astype(np.int64)


def _counts(groups: Sequence[Group], fraction: float) -> Counts:
    """Units that go at this fraction; never the last one."""
    places: dict[str, int] = {}
    for group in groups:
        places.setdefault(_stack(group), len(places) + 1)
    return {
        group.id: min(int(fraction * group.units + places[_stack(group)] * _GOLDEN % 1.0), group.units - 1)
        for group in groups
    }


def _stack(group: Group) -> str:
    """The same for experts whose matrices are slices of one parameter, which must round alike."""
    stacked = [member.parameter for member in group.members if member.at is not None]
    return stacked[0] if stacked else group.id


def _solve(groups: Sequence[Group], meter: _Meter, target: float, total: int) -> Counts:
    """Counts whose parameters come nearest to `target`, the same fraction of all groups."""
    most = {group.id: group.units - 1 for group in groups}
    if meter.removed(most) < target:
        raise NotPrunableError(
            f"At most {meter.removed(most) / total:.4f} of the parameters in scope can go, since one unit "
            f"of every group must stay; {target / total:.4f} was asked for. "
            "Lower the sparsity or add kinds or layers."
        )
    counts = _bisect(groups, {}, meter, target)
    first_of_kind = {group.kind: group for group in reversed(groups)}
    finest = min(first_of_kind, key=lambda kind: _unit_size(meter, first_of_kind[kind], groups))
    coarse = {group.id: counts[group.id] for group in groups if group.kind != finest}
    if not coarse:
        return counts
    better = _bisect([group for group in groups if group.kind == finest], coarse, meter, target)
    return min(counts, better, key=lambda found: abs(meter.removed(found) - target))


def _unit_size(meter: _Meter, group: Group, groups: Sequence[Group]) -> int:
    return meter.removed({other.id: int(other.id == group.id and group.units > 1) for other in groups})


def _bisect(groups: Sequence[Group], fixed: Counts, meter: _Meter, target: float) -> Counts:
    """Solve the fraction of `groups` for `target` while `fixed` stay; the nearer side of the last step."""
    low, high = 0.0, 1.0 + 1.0 / min(group.units for group in groups)
    if target <= 0:
        return fixed | {group.id: 0 for group in groups}
    for _ in range(60):
        middle = (low + high) / 2
        if meter.removed(fixed | _counts(groups, middle)) <= target:
            low = middle
        else:
            high = middle
    ends = [fixed | _counts(groups, low), fixed | _counts(groups, high)]
    return min(ends, key=lambda found: abs(meter.removed(found) - target))
