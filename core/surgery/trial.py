"""Whether attention blocks do without a head: one is taken out, without weights, and the rest is traced.

Sizes that modules keep are rewritten with the cut; numbers that stand in their code are not. Such code may
fail without a head, or take the heads that stay for others, which no shape shows. So the cut block's heads
are found anew, and have to be those that the plan leaves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from core.errors import NotPrunableError
from core.graph.discover import discover
from core.graph.records import Attention, Graph, Group
from core.graph.trace import meta_copy
from core.plan.composed import what_is_left
from core.plan.records import PruningPlan
from core.surgery.operate import operate

HEADS = ("query_head", "kv_group")
#: A member of a unit: parameter, dimension, and which indices.
_Slice = tuple[str, int, tuple[int, ...]]


def heads_tried(model: PreTrainedModel, graph: Graph) -> Graph:
    """The groups; heads of blocks that do not do without one of them are refused, and say why.

    Only blocks are tried whose code may have numbers of its own: one matrix makes queries, keys and values,
    or the model's class is none of transformers. Of blocks that are alike the first is.
    """
    alike: dict[tuple[Any, ...], list[Attention]] = {}
    for each in graph.attentions:
        if _may_have_numbers(model, graph, each):
            key = (type(model.get_submodule(each.module)), each.heads, each.kv_heads, each.head_dim)
            alike.setdefault(key, []).append(each)
    why: dict[int | None, str] = {}
    for same in alike.values():
        if reason := _fails(model, graph, same[0]):
            why |= {each.layer: reason for each in same}
    groups = tuple(_refused(group, why.get(group.layer)) for group in graph.groups)
    refusals = [
        {"kind": group.kind, "layer": group.layer, "reason": group.reason}
        for group, before in zip(groups, graph.groups, strict=True)
        if group is not before
    ]
    return replace(graph, groups=groups, not_prunable=(*graph.not_prunable, *refusals)) if refusals else graph


def _heads(graph: Graph, layer: int) -> list[Group]:
    return [group for group in graph.of_kind(*HEADS) if group.layer == layer]


def _may_have_numbers(model: PreTrainedModel, graph: Graph, attention: Attention) -> bool:
    foreign = not type(model).__module__.startswith("transformers.")
    groups = _heads(graph, attention.layer)
    made = {member.parameter for group in groups for member in group.members if member.role == "layer1"}
    return any(group.prunable and group.units > 1 for group in groups) and (foreign or len(made) < 3)


def _refused(group: Group, reason: str | None) -> Group:
    if reason is None or group.kind not in HEADS or not group.prunable:
        return group
    return replace(group, prunable=False, reason=reason)


def _fails(model: PreTrainedModel, graph: Graph, attention: Attention) -> str | None:
    """Why this block does not do without a head, or None."""
    several = [group for group in _heads(graph, attention.layer) if group.prunable and group.units > 1]
    chosen = min(
        several, key=lambda group: HEADS[::-1].index(group.kind)
    )  # whole key-value heads, if there are some
    plan, where = PruningPlan({chosen.id: (0,)}), f"the code of {attention.module}"
    try:
        twin: Any = operate(meta_copy(model), graph, plan.removed)  # type: ignore[arg-type]
        anew = discover(twin, name=graph.model, twin=twin)
    except NotPrunableError as error:
        return f"{where} has numbers of its own and fails with a head less ({error})"
    wanted, seen = (_slices(_heads(each, attention.layer)) for each in (what_is_left(graph, plan), anew))
    if any(not unit <= other for unit, other in zip(wanted, seen, strict=False)) or len(wanted) != len(seen):
        return f"{where} has numbers of its own and takes heads for others where one is gone"
    return None


def _slices(groups: Iterable[Group]) -> list[set[_Slice]]:
    """What goes with every unit of these groups, group by group."""
    units: list[set[_Slice]] = []
    for group in sorted(groups, key=lambda group: group.id):
        index = [(member, member.index()) for member in group.members]
        units += [
            {(member.parameter, member.dim, tuple(sorted(rows[unit].tolist()))) for member, rows in index}
            for unit in range(group.units)
        ]
    return units
