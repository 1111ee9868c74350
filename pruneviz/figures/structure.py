"""One unit and everything that is coupled to it: its parameter slices, how data links them, what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from core.graph.records import Graph, Group, Member, to_runs
from core.plan.cost import cost, saving
from core.plan.records import Cost, implied

#: Operations that only move numbers about; left out of a link's label.
MOVES = frozenset({
    "view", "_unsafe_view", "reshape", "transpose", "permute", "t", "expand", "clone", "contiguous", "slice",
    "unsqueeze", "squeeze", "to", "_to_copy", "alias", "select", "split", "split_with_sizes", "unbind",
    "getitem", "index", "repeat", "repeat_interleave", "cat", "stack", "flatten", "unflatten", "detach",
    "lift_fresh_copy", "copy",
})  # fmt: skip
PRODUCTS = {"mm": "matmul", "bmm": "matmul", "addmm": "matmul", "baddbmm": "matmul", "matmul": "matmul"}
MAKERS = ("layer1", "embedding", "router")


@dataclass(frozen=True)
class Slice:
    """One parameter's part in the unit; the same part of several layers is one slice.

    Attributes:
        title: the module a person knows, e.g. `mlp.gate_proj`; parameter: the full name of the first one.
        dim: the dimension that is cut; size: its length; spans: (first, last) indices that go, both included.
        shape: of the parameter.
        params: parameters in the slice, all layers together; times: in how many parameters it occurs.
        trigger: pruning starts here and everything else follows.
        stays: shared with units that are not removed.
    """

    title: str
    parameter: str
    role: str
    dim: int
    size: int
    shape: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    params: int
    times: int = 1
    trigger: bool = False
    stays: bool = False

    @property
    def where(self) -> str:
        """`rows 64–127 of 576`; where they lie scattered, only how many."""
        one = len(self.spans) == 1 and self.spans[0][0] == self.spans[0][1]
        flat, across = len(self.shape) == 1, self.dim == len(self.shape) - 1
        word = ("entry" if one else "entries") if flat else ("column" if across else "row") + "s" * (not one)
        if len(self.spans) > 3:
            total = sum(last - first + 1 for first, last in self.spans)
            return f"{total:,} separate {word} of {self.size:,}"
        return f"{word} {spans_text(self.spans)} of {self.size:,}"


@dataclass(frozen=True)
class Link:
    """Data flows from slice `source` to slice `target` (indices) through `ops`."""

    source: int
    target: int
    ops: tuple[str, ...]

    @property
    def label(self) -> str:
        """What is computed on the way, each once, at most four; the last is the target's own product."""
        names = [short_op(name) for name in self.ops]
        inner = names[:-1] if names and names[-1] in PRODUCTS else names
        kept = list(dict.fromkeys(PRODUCTS.get(op, op.strip("_")) for op in inner if op not in MOVES))
        return " · ".join(kept[:4]) + (" …" if len(kept) > 4 else "")


@dataclass(frozen=True)
class StructureInfo:
    """What goes with one unit.

    Attributes:
        cost: what removing it alone saves; dense: what the whole model costs.
        note: what shares parameters with it and so stays, or None.
    """

    group: str
    kind: str
    layer: int | None
    unit: int
    units: int
    prunable: bool
    reason: str | None
    slices: tuple[Slice, ...]
    links: tuple[Link, ...]
    cost: Cost
    dense: Cost
    note: str | None = None


def structure_info(graph: Graph, group_id: str, unit: int) -> StructureInfo:
    """Everything coupled to `unit` of `group_id`. Raises KeyError or IndexError if there is no such unit."""
    group = graph.group(group_id)
    if not 0 <= unit < group.units:
        raise IndexError(f"{group_id} has units 0 to {group.units - 1}, got {unit}.")
    goes = implied(graph, {group_id: (unit,)})
    slices = _mark(_merge(_slices(graph, goes) + _shared(graph, group, unit, goes)), group)
    saved, dense = saving(graph, {group_id: (unit,)}), cost(graph, {})
    return StructureInfo(
        group_id, group.kind, group.layer, unit, group.units, group.prunable, group.reason,
        tuple(part for part, _ in slices), _links(graph, slices), saved, dense, _note(group, unit, goes),
    )  # fmt: skip


def _note(group: Group, unit: int, goes: dict[str, tuple[int, ...]]) -> str | None:
    if group.parent is None or group.parent in goes:
        return None
    head = group.parent_unit[unit]
    others = [str(u) for u, parent in enumerate(group.parent_unit) if parent == head and u != unit]
    readers = ", ".join(others)
    return f"Key-value head {head} stays: query heads {readers} still read it. It goes with the last of them."


Marked = list[tuple[Slice, set[str]]]
Indices = NDArray[np.int64]


def _slices(graph: Graph, units: dict[str, tuple[int, ...]]) -> Marked:
    """One slice per member of these groups, with the parameter it lies in."""
    by_id = graph.by_id
    return [
        (_slice(graph, member, np.unique(member.index()[list(chosen)]), stays=False), {member.parameter})
        for group, chosen in units.items()
        for member in by_id[group].members
    ]


def _shared(graph: Graph, group: Group, unit: int, goes: dict[str, tuple[int, ...]]) -> Marked:
    """What the parent's unit owns beside this group, where it stays because other units still need it."""
    if group.parent is None or group.parent in goes or group.parent not in graph.by_id:
        return []
    own = {(m.parameter, m.dim, m.at): m.index() for m in group.members}
    rest: Marked = []
    for member in graph.group(group.parent).members:
        index = np.unique(member.index()[group.parent_unit[unit]])
        taken = own.get((member.parameter, member.dim, member.at))
        index = index if taken is None else np.setdiff1d(index, taken)
        if index.size:
            rest.append((_slice(graph, member, index, stays=True), {member.parameter}))
    return rest


def _slice(graph: Graph, member: Member, index: Indices, stays: bool) -> Slice:
    shape = graph.parameters[member.parameter].shape
    spans = tuple((a, a + (n - 1) * step) for a, n, step in _steps(index))
    whole = prod(shape) // shape[member.dim]
    params = len(index) * (whole // shape[0] if member.at is not None else whole)
    title = _title(graph, member.parameter) + (f" [expert {member.at}]" if member.at is not None else "")
    return Slice(
        title, member.parameter, member.role, member.dim, shape[member.dim], shape, spans, params, stays=stays
    )


def _steps(index: Indices) -> list[tuple[int, int, int]]:
    """Runs with step 1 only, so that a span is what it says."""
    runs: list[tuple[int, int, int]] = []
    for start, length, step in to_runs(index):
        runs += [(start, length, 1)] if step == 1 else [(start + i * step, 1, 1) for i in range(length)]
    return runs


def _title(graph: Graph, parameter: str) -> str:
    """Without the layer's own name and `.weight`: `mlp.gate_proj`."""
    layer = graph.parameters[parameter].layer
    prefix = f"{graph.layer_modules[layer]}." if layer is not None else ""
    name = parameter.removeprefix(prefix).removesuffix(".weight")
    tied = [parameter, *(other for other, first in graph.tied.items() if first == parameter)]
    return " = ".join(map(_last, tied)) if len(tied) > 1 else name


def _last(parameter: str) -> str:
    return parameter.removesuffix(".weight").rsplit(".", 1)[-1]


def _merge(slices: Marked) -> Marked:
    """Join slices that say the same of different layers, or of the same parameter through two groups."""
    joined: dict[tuple[object, ...], tuple[Slice, set[str]]] = {}
    for part, names in slices:
        key = (part.title, part.role, part.dim, part.spans, part.stays)
        if key not in joined:
            joined[key] = (part, set(names))
            continue
        first, known = joined[key]
        if not names <= known:
            known |= names
            joined[key] = (replace(first, params=first.params + part.params, times=len(known)), known)
    return list(joined.values())


def _mark(slices: Marked, group: Group) -> Marked:
    """Name the trigger: the first producer of the group's own members."""
    own = {member.parameter for member in group.members}
    producers = [i for i, (part, names) in enumerate(slices) if part.role in MAKERS and names & own]
    if producers:
        part, names = slices[producers[0]]
        slices[producers[0]] = (replace(part, trigger=True), names)
    return slices


def _links(graph: Graph, slices: Marked) -> tuple[Link, ...]:
    """Edges of the graph between these slices; without any, each producer is linked to each consumer."""
    pairs: dict[tuple[int, int], tuple[str, ...]] = {}
    sources, targets = _by_parameter(slices, ("layer2",)), _by_parameter(slices, ("layer1", "embedding"))
    for edge in graph.edges:
        for a in sources.get(edge.source, ()):
            for b in targets.get(edge.target, ()):
                if a != b:
                    pairs.setdefault((a, b), edge.ops)
    if not pairs:
        makers = [i for i, (part, _) in enumerate(slices) if part.role in MAKERS]
        takers = [i for i, (part, _) in enumerate(slices) if part.role == "layer2"]
        pairs = {(a, b): () for a in makers for b in takers}
    return tuple(Link(a, b, ops) for (a, b), ops in pairs.items())


def _by_parameter(slices: Marked, without: tuple[str, ...]) -> dict[str, list[int]]:
    """Parameter -> its slices without these roles: a consumer starts no link, a producer ends none."""
    places: dict[str, list[int]] = {}
    for i, (part, names) in enumerate(slices):
        for name in names if part.role not in without else ():
            places.setdefault(name, []).append(i)
    return places


def short_op(name: str) -> str:
    """`aten.silu.default` -> `silu`."""
    parts = name.split(".")
    return parts[1] if parts[0] == "aten" and len(parts) > 1 else parts[0]


def spans_text(spans: tuple[tuple[int, int], ...]) -> str:
    """`64–127`, `3`, `0, 64, 128 and 5 more`."""
    words = [str(first) if first == last else f"{first}–{last}" for first, last in spans]
    return ", ".join(words) if len(words) <= 4 else f"{', '.join(words[:3])} and {len(words) - 3} more"


def spreading(slices: Sequence[Slice], links: Sequence[Link]) -> list[int | None]:
    """For each slice when it is reached: 1 for the trigger, 2 for the first after it, …; None if it stays.

    Pruning spreads along links both ways, the nearest first; what no link reaches comes last.
    """
    near: dict[int, list[int]] = {i: [] for i, part in enumerate(slices) if not part.stays}
    for link in links:
        if link.source in near and link.target in near:
            near[link.source].append(link.target)
            near[link.target].append(link.source)
    starts = sorted(near, key=lambda i: not slices[i].trigger)
    reached: list[int] = []
    for start in starts:  # the trigger first, then whatever it does not reach
        queue = [start] if start not in reached else []
        while queue:
            here = queue.pop(0)
            if here not in reached:
                reached.append(here)
                queue += near[here]
    return [reached.index(i) + 1 if i in near else None for i in range(len(slices))]
