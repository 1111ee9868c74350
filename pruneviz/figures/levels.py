"""Structure in words: where one stands from the model to one unit, what a level says, what couples two."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from core.graph.records import Graph, Group
from core.plan.cost import saving
from core.plan.records import KV_BITS, Cost
from pruneviz.figures.render import render
from pruneviz.figures.states import paragraph_html
from pruneviz.figures.structure_map import kind_words, kinds_in_order, touched


@dataclass(frozen=True)
class Focus:
    """What is looked at: the whole model (no group), a group, or one of its units."""

    group: str = ""
    unit: int | None = None

    @property
    def text(self) -> str:
        """As in the address: nothing, `L04.ffn_channel`, or `L04.ffn_channel/7`."""
        return self.group if self.unit is None else f"{self.group}/{self.unit}"


def focus_of(graph: Graph, text: str | None, layer: str | None = "") -> Focus:
    """The focus in the address if the model has it, else the whole model.

    Args:
        layer: as chosen on this or another tab; a focus in another layer gives way to a group of that one.
    """
    group_id, _, unit = (text or "").partition("/")
    group = graph.by_id.get(group_id)
    wanted = int(layer) if layer and layer.isdecimal() and int(layer) < len(graph.layer_modules) else None
    if group and (wanted is None or group.layer in (None, wanted)):
        inside = unit.isdecimal() and int(unit) < group.units
        return Focus(group_id, int(unit) if inside else None)
    if wanted is None:
        return Focus()
    order = ("query_head", "ffn_channel", "kv_group")
    here = [g for g in graph.groups if g.layer == wanted]
    return (
        Focus(min(here, key=lambda g: (g.kind not in order, g.kind != "query_head")).id) if here else Focus()
    )


def crumbs_html(graph: Graph, focus: Focus, slices: int = 0) -> Markup:
    """The way back, and the heading of where one is.

    Args:
        slices: parameter slices that go with the unit looked at.
    """
    steps: list[tuple[str, str]] = [(graph.model, "")]
    title, note = "The whole model", "Choose a layer and kind on the map to zoom in."
    if focus.group:
        group = graph.group(focus.group)
        kinds, _, _, one = kind_words(group.kind)
        where = "all layers" if group.layer is None else f"layer {group.layer}"
        steps.append((f"{kinds}, {where}", focus.group))
        title, note = f"{kinds}, {where}", f"{group.units:,} units. Choose one to see all that goes with it."
        if focus.unit is not None:
            steps.append((f"{one} {focus.unit}", focus.text))
            together = (
                f"{slices:,} parameter slices go together" if slices != 1 else "One parameter slice goes"
            )
            title, note = f"{one} {focus.unit}, {where}", f"{together}."
    return render("crumbs.html", steps=steps, title=title, note=note)


@dataclass(frozen=True)
class KindRow:
    """One kind over the whole model.

    Attributes:
        params: in at least one unit of the kind; one: what removing a single unit saves.
        reason: why it is not offered, or an empty text.
    """

    kind: str
    groups: int
    units: int
    params: int
    one: Cost
    reason: str

    @property
    def title(self) -> str:
        """The kind in words."""
        return kind_words(self.kind)[0]

    @property
    def why(self) -> str:
        """What the kind is, or why it is not offered."""
        refused = f"not offered: {self.reason.removeprefix('found, not offered: ')}"
        return refused if self.reason else kind_words(self.kind)[1]


def kind_rows(graph: Graph) -> list[KindRow]:
    """A row per kind, in the order of the map."""
    return [_row(graph, kind, graph.of_kind(kind)) for kind in kinds_in_order(graph)]


def _row(graph: Graph, kind: str, groups: list[Group]) -> KindRow:
    family = {g.id: g for g in groups}
    family |= {g.parent: graph.by_id[g.parent] for g in groups if g.parent}
    reasons = {g.reason or "no reason was recorded" for g in groups if not g.prunable}
    sample = next((g for g in groups if g.prunable), groups[0])
    params = touched(graph, list(family.values()))
    return KindRow(kind, len(groups), sum(g.units for g in groups), params, saving(graph, {sample.id: (0,)}),
                   "; ".join(sorted(reasons)))  # fmt: skip


def kinds_html(rows: list[KindRow], dense: Cost) -> Markup:
    """The whole model by kind: how many, how large, what one unit saves, and what cannot go."""
    return render("kinds.html", rows=rows, dense=dense, bits=KV_BITS)


@dataclass(frozen=True)
class Step:
    """One parameter (`kind` is `parameter`) or operation (`operation`) on the path; `times` in a row."""

    kind: str
    name: str
    times: int = 1


def path_info(graph: Graph, first: str, second: str) -> list[Step]:
    """The path between two parameters, repeated operations told once. Raises UnknownNameError."""
    from core.graph.view import path_between  # networkx is slow to import

    steps: list[Step] = []
    for name in path_between(graph, first, second):
        kind = "parameter" if name in graph.parameters else "operation"
        shown = name if kind == "parameter" else name.removeprefix("aten.").strip("_")
        if steps and (steps[-1].kind, steps[-1].name) == (kind, shown):
            steps[-1] = Step(kind, shown, steps[-1].times + 1)
        else:
            steps.append(Step(kind, shown))
    return steps


def path_html(steps: list[Step], first: str, second: str) -> Markup:
    """The path as a list that wraps."""
    if not (first and second):
        return paragraph_html("Choose two parameters, here or in the drawing.")
    if not steps:
        return paragraph_html(f"No data flows between {first} and {second} inside this model.", "note")
    count = sum(step.times for step in steps if step.kind == "operation")
    return render("path.html", steps=steps, count=count)
