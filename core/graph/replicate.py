"""Copy the groups, attentions and refusals of one layer to the layers that equal it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from core.graph.layers import Walk
from core.graph.records import Attention, Bypass, Group, Member, Norm
from core.graph.units import Parts


def replicate(walk: Walk, followed: Parts) -> Parts:
    """Groups, attentions and refusals of every layer, in order of layer, from those that were followed."""
    copies: dict[int, list[int]] = {}
    for layer, twin in walk.twins.items():
        copies.setdefault(twin, []).append(layer)
    groups, attentions, refusals = [], list(followed.attentions), list(followed.not_prunable)
    for group in followed.groups:
        if group.layer is None:
            groups.append(_widened(walk, group, copies))
            continue
        groups.append(group)
        groups += [_moved_group(walk, group, to) for to in copies.get(group.layer, [])]
    for attention in followed.attentions:
        attentions += [_moved_attention(walk, attention, to) for to in copies.get(attention.layer, [])]
    for refusal in followed.not_prunable:
        refusals += [
            {**refusal, "layer": to, "reason": _reworded(walk, refusal, to)}
            for to in copies.get(refusal["layer"], [])
        ]
    depth = len(walk.layers)
    groups.sort(key=lambda group: depth if group.layer is None else group.layer)
    attentions.sort(key=lambda attention: attention.layer)
    refusals.sort(key=lambda refusal: depth if refusal["layer"] is None else refusal["layer"])
    return Parts(groups, attentions, refusals)


def _moved_id(group_id: str, layer: int, to: int) -> str:
    return f"L{to:02d}" + group_id.removeprefix(f"L{layer:02d}")


def _moved_attention(walk: Walk, attention: Attention, to: int) -> Attention:
    return replace(
        attention,
        layer=to,
        module=walk.moved(attention.module, to),
        queries=tuple(walk.moved(name, to) for name in attention.queries),
        values=tuple(walk.moved(name, to) for name in attention.values),
    )


def _moved_group(walk: Walk, group: Group, to: int) -> Group:
    assert group.layer is not None
    reason = group.reason and group.reason.replace(walk.layers[group.layer], walk.layers[to])
    return replace(
        group,
        id=_moved_id(group.id, group.layer, to),
        layer=to,
        members=tuple(replace(m, parameter=walk.moved(m.parameter, to)) for m in group.members),
        parent=group.parent and _moved_id(group.parent, group.layer, to),
        reason=reason,
        norms=tuple(replace(norm, module=walk.moved(norm.module, to)) for norm in group.norms),
        constants=tuple(walk.moved(module, to) for module in group.constants),
        bypass=tuple(_moved_bypass(walk, each, to) for each in group.bypass),
        reads=tuple(_moved_id(name, group.layer, to) for name in group.reads),
    )


def _moved_bypass(walk: Walk, bypass: Bypass, to: int) -> Bypass:
    cache = None if bypass.cache is None else to
    return replace(bypass, module=walk.moved(bypass.module, to), cache=cache)


def _widened(walk: Walk, group: Group, copies: dict[int, list[int]]) -> Group:
    """A group across all layers, with its members in the layers that were not followed."""
    members: list[Member] = []
    norms: list[Norm] = []
    for member in group.members:
        members.append(member)
        layers = copies.get(walk.layer_of(member.parameter), [])  # type: ignore[arg-type]
        members += [replace(member, parameter=walk.moved(member.parameter, to)) for to in layers]
    for norm in group.norms:
        norms.append(norm)
        layers = copies.get(walk.layer_of(norm.module), [])  # type: ignore[arg-type]
        norms += [replace(norm, module=walk.moved(norm.module, to)) for to in layers]
    return replace(group, members=tuple(members), norms=tuple(norms))


def _reworded(walk: Walk, refusal: dict[str, Any], to: int) -> str:
    reason: str = refusal["reason"].replace(walk.layers[refusal["layer"]], walk.layers[to])
    return reason
