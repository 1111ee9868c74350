"""From labels to groups: FFN channels, heads, key-value groups and residual channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.graph.experts import expert_groups, experts_of, one_per_expert
from core.graph.heads import HeadSet, find_heads, head_dim_pairs
from core.graph.labels import Ints
from core.graph.layers import Walk
from core.graph.records import Attention, Group, Kind, Member, Norm
from core.graph.soundness import NOT_OFFERED, judge
from core.graph.table import Key, Layout, Table


@dataclass
class Parts:
    """What a graph is made of: of the layers that were followed, or after `replicate` of all layers."""

    groups: list[Group] = field(default_factory=list)
    attentions: list[Attention] = field(default_factory=list)
    not_prunable: list[dict[str, Any]] = field(default_factory=list)


class GroupBuilder:
    """Builds the groups of the layers that were followed."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.store = walk.flow.store
        self.table = Table(self.store)
        self.stream = np.unique(self.store.find(walk.stream))
        self.parts = Parts()
        self._taken: Counter[str] = Counter()

    def run(self) -> Parts:
        """All groups, heads first: what belongs to a head is not an FFN channel."""
        heads, failed = find_heads(self.walk.flow, self.table)
        for module, reason in failed:
            self._refuse("kv_group", self.walk.layer_of(module), f"module '{module}': {reason}")
        for head_set in heads:
            self._add_heads(head_set)
        used = [classes for head_set in heads for classes in head_set.groups]
        used += [head_set.channels.ravel() for head_set in heads]
        self._add_ffn(np.unique(np.concatenate([self.stream, *used])))
        self._add_residual()
        for head_set in heads:
            pairs = head_dim_pairs(self.table, head_set)
            self._add("head_dim_pair", self.walk.layer_of(head_set.module), pairs)
        self.parts.groups += expert_groups(self.store, self.table, self.walk, self.parts.groups)
        self._unfollowed()
        self._missing_heads({self.walk.layer_of(head_set.module) for head_set in heads})
        return self.parts

    def _missing_heads(self, with_heads: set[int | None]) -> None:
        """Refuse the heads of every layer that shows none, and say why that may be."""
        for layer in {s.layer for s in self.walk.segments if s.layer is not None} - set(self.walk.twins):
            if layer in with_heads:
                continue
            unknown = (
                a for a in self.store.across if a.kind == "unknown" and self.walk.layer_of(a.module) == layer
            )
            first = next(unknown, None)
            why = f": operation {first.what} in module '{first.module}' cannot be followed" if first else ""
            self._refuse(
                "kv_group", layer, f"no attention with heads was found in '{self.walk.layers[layer]}'{why}"
            )

    def _unfollowed(self) -> None:
        """Say which channels ended in an operation that could not be followed, and are in no group."""
        grouped = {(member.parameter, member.dim) for group in self.parts.groups for member in group.members}
        told: set[tuple[str, str]] = set()
        for across in self.store.across:
            if across.kind != "unknown":
                continue
            classes = self.store.find(np.unique(across.lines))
            keys = {self.table.keys[k] for k in self.table.key[np.isin(self.table.classes, classes)]}
            names = sorted(name for name, dim in keys - grouped if self.store.roles.get((name, dim)) == "out")
            if names and (names[0], across.what) not in told:
                told.add((names[0], across.what))
                why = (
                    f"the channels {', '.join(names)} makes end in {across.what} in module '{across.module}'"
                )
                self._refuse("ffn_channel", self.walk.layer_of(names[0]), f"{why}, which cannot be followed")

    def _add_heads(self, heads: HeadSet) -> None:
        layer = self.walk.layer_of(heads.module)
        parents = self._add("kv_group", layer, heads.groups)
        multi_head = len(heads.groups) == len(heads.heads)
        place = {int(unit): (group, i) for group, layout in parents for i, unit in enumerate(layout.units)}
        families: dict[str | None, list[int]] = {}
        for head, group in enumerate(heads.group_of):
            owner = None if multi_head else place[int(group)][0].id
            families.setdefault(owner, []).append(head)
        for owner, members in families.items():
            self._add(
                "query_head",
                layer,
                [heads.heads[h] for h in members],
                parent=owner,
                parent_unit=[] if owner is None else [place[int(heads.group_of[h])][1] for h in members],
            )
        if layer is not None:
            count = len(heads.heads), len(heads.groups), heads.channels.shape[1], heads.value_dim
            queries, values = (self.table.makers(labels) for labels in (heads.queries, heads.values))
            self.parts.attentions.append(Attention(layer, heads.module, *count, queries, values))

    def _add_ffn(self, taken: Ints) -> None:
        """Channels between a layer that reads the residual stream and one that writes it."""
        table, busy = self.table, np.zeros(self.store.total, dtype=bool)
        busy[taken] = True
        has = {role: np.zeros(self.store.total, dtype=bool) for role in ("layer1", "layer2")}
        for number, role in enumerate(table.roles):
            if role in has:
                has[role][table.classes[table.key == number]] = True
        free = np.flatnonzero(has["layer1"] & has["layer2"] & ~busy)
        units = [np.array([unit]) for unit in self._in_order(free)]
        for layout in table.layouts(units):
            keys = [(member.parameter, member.dim) for member in layout.members]
            layer = self._common_layer(keys)
            classes = [units[i] for i in layout.units]
            names = ", ".join(sorted({name for name, _ in keys}))
            if not self._between_stream(keys):
                why = f"the channels between {names} do not run from the residual stream straight back to it"
                self._refuse("latent_channel", layer, why)
            elif np.isin(np.concatenate(classes), table.shares[:, 0]).any():
                why = f"the channels of {names} are shared by others that cannot be told apart"
                self._refuse("ffn_channel", layer, why)
            else:
                self._add("ffn_channel", layer, classes, experts=experts_of(self.store, keys))

    def _in_order(self, classes: Ints) -> list[int]:
        """Classes in the order in which their first index stands in the parameter that makes them."""
        rows = np.flatnonzero(np.isin(self.table.classes, classes))
        first_row = [i for i in rows if self.table.roles[self.table.key[i]] == "layer1"]
        seen: dict[int, None] = {}
        for row in first_row:
            seen.setdefault(int(self.table.classes[row]))
        return list(seen)

    def _between_stream(self, keys: list[Key]) -> bool:
        """Whether the matrices have residual channels on their other side."""
        for name, dim in keys:
            other = {"out": "in", "in": "out"}.get(self.store.roles.get((name, dim), ""))
            sides = (key for key, role in self.store.roles.items() if key[0] == name and role == other)
            if not all(np.isin(self.table.of_key(key), self.stream).all() for key in sides):
                return False
        return True

    def _add_residual(self) -> None:
        units = [np.array([unit]) for unit in self.stream]
        if units:
            self._add("residual_channel", None, units)
        else:
            self._refuse("residual_channel", None, "no stream of channels runs through the decoder layers")

    def _add(
        self,
        kind: Kind,
        layer: int | None,
        units: list[Ints],
        parent: str | None = None,
        parent_unit: Sequence[int] = (),
        experts: int = 0,
    ) -> list[tuple[Group, Layout]]:
        added = []
        classes, owners = np.unique(np.concatenate(units), return_counts=True)
        several = classes[owners > 1]
        for layout in self.table.layouts(units):
            reason, norms, constants = judge(self.store, kind, [units[i] for i in layout.units])
            reason = self._reason(kind, layer, layout, norms, several, reason)
            parents = tuple(int(parent_unit[i]) for i in layout.units) if parent is not None else ()
            group = Group(
                id=self._name(kind, layer, bool(experts)),
                kind=kind,
                layer=layer,
                units=len(layout.units),
                members=self._own(layout, layer),
                prunable=reason is None,
                reason=reason,
                parent=parent,
                parent_unit=parents,
                norms=norms,
                constants=constants,
            )
            self.parts.groups += one_per_expert(group, experts) if experts else [group]
            added.append((group, layout))
            if reason is not None and reason not in NOT_OFFERED.values():
                self._refuse(kind, layer, reason)
        return added

    def _reason(
        self,
        kind: Kind,
        layer: int | None,
        layout: Layout,
        norms: tuple[Norm, ...],
        several: Ints,
        judged: str | None,
    ) -> str | None:
        """Why the units of a layout cannot go, None if they can.

        Args:
            several: classes that belong to several units.
            judged: what `judge` said.
        """
        offered = kind not in NOT_OFFERED
        if offered and len(several):
            row = int(np.isin(self.table.classes, several).argmax())
            name = self.table.keys[self.table.key[row]][0]
            return f"slices of {name} belong to several units at once"
        if judged is None and (stiff := self._stiff(kind, norms, layout)):
            return f"module '{stiff}' averages over the units in code of its own, which cannot be rescaled"
        if offered and layer is not None and (outside := self._outside(layout, layer)):
            return f"other layers share its parameter {outside}"
        if judged is None and layout.private:
            return f"each unit has parameters of its own, e.g. {layout.private[0]}, that no slice can hold"
        return judged

    def _own(self, layout: Layout, layer: int | None) -> tuple[Member, ...]:
        """The members that lie in the layer; all of them for a group across layers."""
        return tuple(m for m in layout.members if layer is None or self.walk.layer_of(m.parameter) == layer)

    def _outside(self, layout: Layout, layer: int) -> str | None:
        """A parameter of the units that lies in no layer, or in another one."""
        names = (member.parameter for member in layout.members)
        return next((name for name in names if self.walk.layer_of(name) != layer), None)

    def _stiff(self, kind: Kind, norms: tuple[Norm, ...], layout: Layout) -> str | None:
        """A module that averages over the units, but is no norm with a weight, or with no parameters."""
        tape, members = self.walk.flow.tape, {member.parameter for member in layout.members}
        for norm in norms:
            inside = norm.module + "."
            leaf = not any(name.startswith(inside) for name in tape.classes)
            own = {name for name in tape.parameters.values() if name.startswith(inside)}
            if not leaf or not (own & members or (not own and kind == "residual_channel")):
                return norm.module
        return None

    def _name(self, kind: str, layer: int | None, experts: bool) -> str:
        stem = kind if layer is None else f"L{layer:02d}.{kind}"
        # Experts have a suffix of their own, so theirs do not count.
        key = f"{stem}.e" if experts else stem
        self._taken[key] += 1
        return stem if self._taken[key] == 1 else f"{stem}.{self._taken[key] - 1}"

    def _common_layer(self, keys: list[Key]) -> int | None:
        layers = {self.walk.layer_of(name) for name, _ in keys}
        return layers.pop() if len(layers) == 1 else None

    def _refuse(self, kind: str, layer: int | None, reason: str) -> None:
        self.parts.not_prunable.append({"kind": kind, "layer": layer, "reason": reason})
