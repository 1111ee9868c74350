"""Copy what was found in one layer to the layers that equal it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from core.graph.layers import Walk
from core.graph.records import Attention, Group, Member, Norm
from core.graph.units import Found


@dataclass(frozen=True)
class Parts:
    """What the graph is made of, for all layers."""

    groups: tuple[Group, ...]
    attentions: tuple[Attention, ...]
    not_prunable: tuple[dict[str, Any], ...]


def replicate(walk: Walk, found: Found) -> Parts:
    """Groups, attentions and refusals of every layer, in order of layer."""
    copies: dict[int, list[int]] = {}
    for layer, twin in walk.twins.items():
        copies.setdefault(twin, []).append(layer)
    groups, attentions, refusals = [], list(found.attentions), list(found.not_prunable)
    for group in found.groups:
        if group.layer is None:
            groups.append(_widened(walk, group, copies))
            continue
        groups.append(group)
        groups += [_moved_group(walk, group, to) for to in copies.get(group.layer, [])]
    for attention in found.attentions:
        attentions += [
            replace(attention, layer=to, module=_moved(walk, attention.module, to))
            for to in copies.get(attention.layer, [])
        ]
    for refusal in found.not_prunable:
        refusals += [
            {**refusal, "layer": to, "reason": _reworded(walk, refusal, to)}
            for to in copies.get(refusal["layer"], [])
        ]
    depth = len(walk.layers)
    groups.sort(key=lambda group: depth if group.layer is None else group.layer)
    attentions.sort(key=lambda attention: attention.layer)
    refusals.sort(key=lambda refusal: depth if refusal["layer"] is None else refusal["layer"])
    return Parts(tuple(groups), tuple(attentions), tuple(refusals))


def _moved(walk: Walk, name: str, to: int) -> str:
    """The name of the same thing in another layer."""
    layer = walk.layer_of(name)
    return name if layer is None else walk.layers[to] + name.removeprefix(walk.layers[layer])


def _moved_id(walk: Walk, group_id: str, layer: int, to: int) -> str:
    return f"L{to:02d}" + group_id.removeprefix(f"L{layer:02d}")


def _moved_group(walk: Walk, group: Group, to: int) -> Group:
    assert group.layer is not None
    reason = group.reason and group.reason.replace(walk.layers[group.layer], walk.layers[to])
    return replace(
        group,
        id=_moved_id(walk, group.id, group.layer, to),
        layer=to,
        members=tuple(replace(m, parameter=_moved(walk, m.parameter, to)) for m in group.members),
        parent=group.parent and _moved_id(walk, group.parent, group.layer, to),
        reason=reason,
        norms=tuple(replace(norm, module=_moved(walk, norm.module, to)) for norm in group.norms),
        constants=tuple(_moved(walk, module, to) for module in group.constants),
    )


def _widened(walk: Walk, group: Group, copies: dict[int, list[int]]) -> Group:
    """A group across all layers, with its members in the layers that were not followed."""
    members: list[Member] = []
    norms: list[Norm] = []
    for member in group.members:
        members.append(member)
        layers = copies.get(walk.layer_of(member.parameter), [])  # type: ignore[arg-type]
        members += [replace(member, parameter=_moved(walk, member.parameter, to)) for to in layers]
    for norm in group.norms:
        norms.append(norm)
        layers = copies.get(walk.layer_of(norm.module), [])  # type: ignore[arg-type]
        norms += [replace(norm, module=_moved(walk, norm.module, to)) for to in layers]
    return replace(group, members=tuple(members), norms=tuple(norms))


def _reworded(walk: Walk, refusal: dict[str, Any], to: int) -> str:
    reason: str = refusal["reason"].replace(walk.layers[refusal["layer"]], walk.layers[to])
    return reason
