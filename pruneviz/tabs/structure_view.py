"""What the Structure tab shows of the whole model, a group or a unit, and what a choice of units changes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from core.errors import ArtifactError, PruneError, SpecError
from core.graph.records import Graph, Group
from core.plan.cost import cost
from core.runs.artifacts import GROUPS
from core.spec.run import RunSpec
from core.spec.units import numbers_text, parse_numbers
from pruneviz.actions import launch as actions
from pruneviz.components.base import payload
from pruneviz.components.coupled_structure import cost_html, members_html, structure_svg
from pruneviz.context import AppContext
from pruneviz.data import runs, selection
from pruneviz.data.cards import local_folder
from pruneviz.figures import states
from pruneviz.figures.levels import (
    Focus,
    crumbs_html,
    focus_of,
    kind_rows,
    kinds_html,
    path_html,
    path_info,
)
from pruneviz.figures.structure import structure_info
from pruneviz.figures.structure_map import MapInfo, kind_words, map_info
from pruneviz.tabs.parts import Parts, message


@dataclass(frozen=True)
class View(Parts):
    """What is looked at: first the address and the map, then what `look` fills."""

    layer_box: gr.Textbox
    unit_box: gr.Textbox
    overview: gr.HTML
    where: gr.HTML
    whole: gr.Column
    group: gr.Column
    unit: gr.Column
    below: gr.Column
    picker: gr.HTML
    numbers: gr.Textbox
    said: gr.HTML
    price: gr.HTML
    drawing: gr.HTML
    first: gr.Dropdown
    second: gr.Dropdown
    path: gr.HTML
    members: gr.HTML


def groups_spec(app: AppContext, model: str) -> RunSpec:
    """The run that finds the groups, from the config alone where no weights are here. Raises SpecError."""
    far = local_folder(model) is None and model != "demo" and not model.lower().endswith(".gguf")
    return actions.explore_spec(app, model, ("groups",), config_only=far)


def overview(run_dir: Path) -> tuple[MapInfo, str]:
    """The map and the table of kinds, counted once per file."""
    path = run_dir / GROUPS
    return _counted(run_dir, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=4)
def _counted(run_dir: Path, changed: int) -> tuple[MapInfo, str]:
    graph = runs.graph_of(run_dir)
    return map_info(graph), kinds_html(kind_rows(graph), cost(graph, {}))


def map_value(info: MapInfo, graph: Graph, focus: Focus, units: str | None) -> str:
    chosen = {group: len(numbers) for group, numbers in selection.fitting(graph, units)[0].items()}
    return payload(info.to_browser(focus.group, chosen))


def grid(graph: Graph, focus: Focus, units: str | None) -> Any:
    """What the grid of units shows, or no change for the whole model."""
    if not focus.group:
        return gr.skip()
    group = graph.group(focus.group)
    chosen = selection.fitting(graph, units)[0].get(group.id, ())
    return payload(
        {
            "group": group.id, "units": group.units, "unit": focus.unit, "word": kind_words(group.kind)[3],
            "chosen": numbers_text(chosen), "fixed": None if group.prunable else _why(group),
        }
    )  # fmt: skip


def _why(group: Group) -> str:
    return (group.reason or "no reason was recorded").removeprefix("found, not offered: ")


def look(graph: Graph, focus: Focus, units: str | None) -> dict[str, Any]:
    """What `View` shows of the whole model, a group or a unit."""
    info = structure_info(graph, focus.group, focus.unit or 0) if focus.group else None
    slices = sum(part.times for part in info.slices if not part.stays) if info else 0
    updates: dict[str, Any] = {
        "where": crumbs_html(graph, focus, slices),
        "whole": gr.Column(visible=not focus.group),
        "group": gr.Column(visible=bool(focus.group)),
        "unit": gr.Column(visible=focus.unit is not None),
        "below": gr.Column(visible=focus.unit is not None),
    }
    if info is None:
        return updates
    group = graph.group(focus.group)
    label = f"{kind_words(group.kind)[3]} numbers, 0 to {group.units - 1}"
    updates |= {
        "picker": grid(graph, focus, units),
        "numbers": gr.Textbox("", label=label),
        "said": message(""),
        "price": cost_html(info, alone=focus.unit is not None),
    }
    if focus.unit is None:
        return updates
    names = sorted({m.parameter for m in group.members} | {part.parameter for part in info.slices})
    return updates | {
        "drawing": structure_svg(info),
        "first": gr.Dropdown(names, value=None),
        "second": gr.Dropdown(names, value=None),
        "path": path_html([], "", ""),
        "members": members_html(info),
    }


def newest_graph(app: AppContext, model: str) -> tuple[Graph, MapInfo] | None:
    """The groups of a model and their map, if some run has found them."""
    run_dir = app.latest(model, GROUPS)
    try:
        return (runs.graph_of(run_dir), overview(run_dir)[0]) if run_dir else None
    except ArtifactError:  # said where the tab shows them
        return None


def go(app: AppContext, model: str, units: str | None, wanted: str) -> dict[str, Any]:
    """Layer and unit for the address, the map, and the view; the whole model if there is no such unit."""
    newest = newest_graph(app, model)
    if newest is None:
        return {}
    graph, info = newest
    focus = focus_of(graph, wanted)
    layer = graph.group(focus.group).layer if focus.group else None
    return {
        "layer_box": "" if layer is None else str(layer),
        "unit_box": focus.text,
        "overview": map_value(info, graph, focus, units),
        **look(graph, focus, units),
    }


def look_up(app: AppContext, model: str, group_id: str, text: str, units: str | None) -> dict[str, Any]:
    """Look at the unit with this number; several cannot be looked at at once."""
    newest = newest_graph(app, model)
    group = newest[0].by_id.get(group_id) if newest else None
    if group is None:
        return {}
    try:
        numbers = parse_numbers(text, group.units)
        if len(numbers) > 1:
            raise SpecError(
                f"One unit can be looked at at a time, got {len(numbers)}; press Choose to choose them."
            )
    except PruneError as error:
        return {"said": said(str(error))}
    return go(app, model, units, f"{group_id}/{numbers[0]}")


def choose(
    app: AppContext, model: str, group_id: str, what: str, text: str, units: str | None
) -> tuple[str | None, gr.HTML]:
    """The chosen units for the address, None if they stay, and what is to be said about it.

    Args:
        what: `set` the group's units to `text`, `add` those, take `all` or `none` of the group, or choose the
            group's units in `every` layer.
    """
    newest = newest_graph(app, model)
    group = newest[0].by_id.get(group_id) if newest else None
    if newest is None or group is None:
        return None, message("")
    try:
        if not group.prunable and what != "none":
            raise SpecError(f"{kind_words(group.kind)[0]} cannot be chosen: {_why(group)}.")
        return chosen_text(newest[0], group, what, text, units), message("")
    except PruneError as error:
        return None, said(str(error))


def chosen_text(graph: Graph, group: Group, what: str, text: str, units: str | None) -> str:
    """The address after a choice, see `choose`. Raises SpecError in words."""
    before = selection.fitting(graph, units)[0]
    mine: tuple[int, ...] = before.get(group.id, ())
    if what == "set":
        mine = parse_numbers(text, group.units) if text else ()
    elif what == "add":
        mine = tuple({*mine, *parse_numbers(text, group.units)})
    elif what == "all":
        mine = tuple(range(group.units))
    elif what == "none":
        mine = ()
    elif not mine:
        raise SpecError("No unit of this layer is chosen yet; choose some, then repeat them in all layers.")
    else:
        alike = [g for g in graph.of_kind(group.kind) if g.prunable]
        more = {g.id: {*before.get(g.id, ()), *(u for u in mine if u < g.units)} for g in alike}
        return selection.text_of({**before, **more})
    return selection.text_of({**before, group.id: mine})


def said(text: str) -> gr.HTML:
    """An update of the line that says why nothing was chosen."""
    return message(states.paragraph_html(text, "note", "alert"))


def pair(app: AppContext, model: str, first: str, second: str) -> dict[str, Any]:
    """Both parameters and the path between them."""
    newest = newest_graph(app, model)
    if newest is None:
        return {}
    steps = path_info(newest[0], first, second) if first and second else []
    return {"first": first or None, "second": second or None, "path": path_html(steps, first, second)}


def marked(app: AppContext, model: str, unit: str, first: str | None, second: str | None) -> dict[str, Any]:
    """The drawing with these two boxes marked, and the path between them."""
    newest = newest_graph(app, model)
    focus = focus_of(newest[0], unit) if newest else Focus()
    if newest is None or focus.unit is None:
        return {}
    drawing = structure_svg(
        structure_info(newest[0], focus.group, focus.unit), [name for name in (first, second) if name]
    )
    return {"drawing": drawing, "path": pair(app, model, first or "", second or "")["path"]}
