"""Whole blocks that go: which they are, and what a graph is without them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from core.graph.records import BLOCKS, Graph, Group

Removed = dict[str, tuple[int, ...]]


def blocks_gone(graph: Graph, removed: Mapping[str, Sequence[int]]) -> list[Group]:
    """The blocks a plan takes whole, none of them inside another.

    A layer goes with the last of its blocks, and with it what they share, such as one norm for both.
    """
    groups = graph.by_id
    named = [groups[name] for name, units in removed.items() if units and name in groups]
    gone = [group for group in named if group.kind in BLOCKS]
    layers = {group.layer for group in gone if group.kind == "layer"}
    emptied = {group.layer for group in gone} - layers
    if emptied:
        whole = {g.layer: g for g in graph.of_kind("layer") if g.prunable and g.layer in emptied}
        ids = {group.id for group in gone}
        for number, layer in whole.items():
            blocks = [g.id for g in graph.of_kind(*BLOCKS) if g.layer == number and g is not layer]
            if ids.issuperset(blocks):
                gone.append(layer)
                layers.add(number)
    return [group for group in gone if group.kind == "layer" or group.layer not in layers]


def without_blocks(graph: Graph, removed: Mapping[str, Sequence[int]]) -> tuple[Graph, Removed]:
    """The graph of the model without the blocks of a plan, and what else goes: units of what is left."""
    gone = blocks_gone(graph, removed)
    if not gone:
        return graph, {name: tuple(units) for name, units in removed.items()}
    parameters = {member.parameter for group in gone for member in group.members}
    inside = tuple(f"{each.module}." for group in gone for each in group.bypass)
    left = replace(
        graph,
        parameters={name: each for name, each in graph.parameters.items() if name not in parameters},
        groups=tuple(_left(group, parameters, inside) for group in graph.groups if _stays(group, parameters)),
        attentions=tuple(each for each in graph.attentions if not f"{each.module}.".startswith(inside)),
        edges=tuple(each for each in graph.edges if not {each.source, each.target} & parameters),
    )
    ids = left.by_id
    return left, {name: tuple(units) for name, units in removed.items() if name in ids}


def _stays(group: Group, parameters: Collection[str]) -> bool:
    return not group.members or any(member.parameter not in parameters for member in group.members)


def _left(group: Group, parameters: Collection[str], inside: tuple[str, ...]) -> Group:
    if all(member.parameter not in parameters for member in group.members):
        return group
    return replace(
        group,
        members=tuple(member for member in group.members if member.parameter not in parameters),
        norms=tuple(norm for norm in group.norms if not f"{norm.module}.".startswith(inside)),
        bypass=tuple(each for each in group.bypass if not f"{each.module}.".startswith(inside)),
    )
