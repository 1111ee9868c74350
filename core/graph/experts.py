"""Mixtures of experts: parameters that hold one slice per expert, and the router that chooses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.graph.labels import LabelStore
from core.graph.layers import Walk
from core.graph.records import Group, Member, Role
from core.graph.soundness import NOT_OFFERED
from core.graph.table import Key, Table


def experts_of(store: LabelStore, keys: list[Key]) -> int:
    """How many experts these parameters hold a slice for; 0 where not all of them do."""
    if any(store.roles.get((name, 0)) != "stack" for name, _ in keys):
        return 0
    counts = {store.sizes[name, 0] for name, _ in keys}
    return counts.pop() if len(counts) == 1 else 0


def one_per_expert(group: Group, experts: int) -> list[Group]:
    """The same group once per expert: its channels can go on their own."""
    return [
        replace(
            group,
            id=f"{group.id}.e{expert:02d}",
            members=tuple(replace(member, at=expert) for member in group.members),
        )
        for expert in range(experts)
    ]


def expert_groups(store: LabelStore, table: Table, walk: Walk, groups: list[Group]) -> list[Group]:
    """One group per layer with experts: their slices of every stack, and their router rows."""
    stacks: dict[int, dict[str, Role]] = {}
    for group in groups:
        if group.layer is not None:
            roles = {member.parameter: member.role for member in group.members if member.at == 0}
            stacks.setdefault(group.layer, {}).update(roles)
    for (name, _), role in store.roles.items():
        layer = walk.layer_of(name)
        if role == "stack" and layer in stacks:
            # What is stacked and belongs to no channel of an expert is a bias of its output.
            stacks[layer].setdefault(name, "vector")
    return [
        _expert_group(store, table, walk, layer, roles) for layer, roles in sorted(stacks.items()) if roles
    ]


def _expert_group(store: LabelStore, table: Table, walk: Walk, layer: int, roles: dict[str, Role]) -> Group:
    experts = store.sizes[next(iter(roles)), 0]
    members = [_slice(name, role, experts) for name, role in roles.items()]
    members += [_slice(name, "router", experts) for name in _routers(store, table, walk, layer, experts)]
    reason = NOT_OFFERED["expert"]
    return Group(f"L{layer:02d}.expert", "expert", layer, experts, tuple(members), False, reason)


def _slice(name: str, role: Role, experts: int) -> Member:
    return Member(name, 0, role, 1, ((0, experts, 1),))


def _routers(store: LabelStore, table: Table, walk: Walk, layer: int, experts: int) -> list[str]:
    """Parameters of the layer with one row per expert, between which it chooses."""
    lines = [store.find(a.lines) for a in store.across if a.kind in ("choice", "softmax")]
    names = []
    for key, role in zip(table.keys, table.roles, strict=True):
        name, dim = key
        if dim != 0 or store.sizes[key] != experts or walk.layer_of(name) != layer:
            continue
        if store.roles.get((name, 0)) == "stack" or role not in ("layer1", "vector"):
            continue
        classes = table.of_key(key)
        if any(line.shape[1] == experts and np.isin(classes, line).all() for line in lines):
            names.append(name)
    return names
