"""The Structure tab: from the whole model to one unit, what goes with it, and units chosen for a plan.

Element ids: structure-state, structure-launch, structure-config, structure-content, structure-about,
structure-map, structure-where, structure-kinds, structure-units, structure-numbers, structure-look,
structure-choose, structure-all, structure-every, structure-clear, structure-said, structure-cost,
structure-drawing, structure-first, structure-second, structure-path, structure-members, structure-refused.
Those of the chosen units are in `structure_plan.py`. Cells of the map are
`#structure-map .pv-cell[data-group="L04.ffn_channel"]`. The address holds `unit=L04.ffn_channel/7` (what is
looked at) and `units=…` (what is chosen, see `pruneviz/data/selection.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from core.runs.artifacts import GROUPS
from pruneviz.components.base import panel
from pruneviz.components.structure_map import buttons, coupled_drawing, structure_map, unit_picker
from pruneviz.context import AppContext
from pruneviz.data import runs
from pruneviz.figures.levels import focus_of
from pruneviz.figures.structure_map import about_html, refused_html
from pruneviz.tabs import structure_plan
from pruneviz.tabs import structure_view as view
from pruneviz.tabs.analysis import AnalysisFrame
from pruneviz.tabs.parts import QUIET, Parts, intro
from pruneviz.tabs.structure_plan import PlanCard
from pruneviz.tabs.structure_view import View, groups_spec

INTRO = (
    "A unit can only be removed together with every parameter slice it is coupled to. "
    "Zoom in on a unit to see all that goes; choose units to sum up their cost, try them, or prune them."
)
#: Buttons beside the field for unit numbers: name in the element id -> title.
CHOOSERS = {
    "look": "Look at",
    "choose": "Choose",
    "all": "All of this layer",
    "every": "Same in all layers",
    "clear": "Clear",
}


@dataclass(frozen=True)
class StructurePage(Parts):
    """Everything that callbacks change."""

    about: gr.HTML
    kinds: gr.HTML
    refused: gr.HTML
    shown: View
    plan: PlanCard


def build_structure_tab(app: AppContext) -> None:
    """Build the tab and wire it."""
    intro(INTRO)
    frame = AnalysisFrame(
        app, "structure", "groups", GROUPS, ("groups",),
        "No coupled groups of this model yet",
        "They are found by tracing the model once; no layer names are needed and nothing is changed. "
        "Where there is only a config, that is enough.",
        "Discover groups",
    )  # fmt: skip
    with frame.content:
        about = panel("structure-about", styled=True)
        with gr.Row():
            with gr.Column(scale=5, min_width=400):
                overview = structure_map(elem_id="structure-map", min_height=300)
                card, prune, trial, none = structure_plan.build_card()
            with gr.Column(scale=8, min_width=480):
                seen, kinds, choosers = _build_view()
        with gr.Column(visible=False) as below:
            last = _build_below()
        box, prompt, go, stop = structure_plan.build_trial()
        refused = panel("structure-refused", styled=True)
    shown = View(app.url.layer, app.url.unit, overview, *[*seen[:4], below, *seen[4:], *last])
    plan = PlanCard(card, prune, trial, none, go)
    structure_plan.wire_plan(app, plan, box, prompt, stop)
    page = StructurePage(about, kinds, refused, shown, plan)
    _wire_frame(app, frame, page)
    _wire(app, page, choosers)


def _build_view() -> tuple[list[Any], gr.HTML, list[Any]]:
    where = buttons(elem_id="structure-where", min_height=74)
    with gr.Column(visible=True) as whole:
        kinds = panel("structure-kinds", styled=True)
    with gr.Column(visible=False) as group:
        picker = unit_picker(elem_id="structure-units")
        with gr.Row(elem_classes="pv-field-row", elem_id="structure-choosing"):
            numbers = gr.Textbox(
                label="Unit numbers", placeholder="0-3, 7 or all", elem_id="structure-numbers", max_lines=1,
                min_width=200, scale=3,
            )  # fmt: skip
            choosers = [
                gr.Button(title, elem_id=f"structure-{name}", scale=0, min_width=40)
                for name, title in CHOOSERS.items()
            ]
        said = panel("structure-said", styled=True, visible=False)
        price = panel("structure-cost", styled=True)
    with gr.Column(visible=False) as unit:
        drawing = coupled_drawing(elem_id="structure-drawing")
    return [where, whole, group, unit, picker, numbers, said, price, drawing], kinds, choosers


def _build_below() -> list[Any]:
    with gr.Column(elem_classes="pv-boxed"):
        gr.HTML('<h3 class="pv-unit-title">Why do two parameters go together?</h3>')
        with gr.Row():
            first = gr.Dropdown([], label="First parameter", elem_id="structure-first")
            second = gr.Dropdown([], label="Second parameter", elem_id="structure-second")
        path = panel("structure-path", styled=True, min_height=28)
    return [first, second, path, panel("structure-members", styled=True)]


def _wire_frame(app: AppContext, frame: AnalysisFrame, page: StructurePage) -> None:
    url, shown = app.url, page.shown

    def load(
        model: str, run_dir: Path, layer: str | None, unit: str | None, units: str | None
    ) -> dict[Any, Any]:
        graph, (info, kinds) = runs.graph_of(run_dir), view.overview(run_dir)
        focus = focus_of(graph, unit, layer)
        where = {"unit_box": focus.text, "overview": view.map_value(info, graph, focus, units)}
        return page.filled(
            {
                "about": about_html(info), "kinds": kinds, "refused": refused_html(info),
                "shown": {**where, **view.look(graph, focus, units)},
                "plan": structure_plan.shown(graph, model, units),
            }
        )  # fmt: skip

    def refresh(model: str, unit: str | None, units: str | None) -> Any:
        newest = view.newest_graph(app, model)
        if newest is None:
            return gr.skip()
        graph, info = newest
        focus = focus_of(graph, unit)
        overview, picker = view.map_value(info, graph, focus, units), view.grid(graph, focus, units)
        seen = {"overview": overview, "picker": picker}
        return page.filled({"shown": seen, "plan": structure_plan.shown(graph, model, units)})

    address = [url.layer, url.unit, url.units]
    frame.wire(load, page.all(), address, ask=(partial(groups_spec, app), []))
    changed = [shown.overview, shown.picker, *page.plan.all()]
    url.units.change(refresh, [url.model, url.unit, url.units], changed, **QUIET)


def _wire(app: AppContext, page: StructurePage, choosers: list[Any]) -> None:
    url, shown = app.url, page.shown

    def updates(names: dict[str, Any]) -> Any:
        return shown.filled(names) if names else gr.skip()

    def look(model: str, units: str | None, event: gr.EventData) -> Any:
        focus = getattr(event, "focus", None)
        unit = f"{getattr(event, 'group', '')}/{getattr(event, 'unit', None)}"
        return updates(view.go(app, model, units, unit if focus is None else str(focus)))

    def zoom(model: str, units: str | None, event: gr.EventData) -> Any:
        return updates(view.go(app, model, units, str(event.group)))

    def chosen(model: str, group: str, what: str, text: str, units: str | None) -> dict[Any, Any]:
        text_now, said = view.choose(app, model, group, what, text, units)
        return {shown.said: said, **({} if text_now is None else {url.units: text_now})}

    def choose(model: str, units: str | None, event: gr.EventData) -> dict[Any, Any]:
        return chosen(model, str(event.group), "set", str(event.units), units)

    def pressed(what: str) -> Any:
        def click(model: str, unit: str | None, text: str | None, units: str | None) -> dict[Any, Any]:
            return chosen(model, (unit or "").partition("/")[0], what, text or "", units)

        return click

    def typed(model: str, unit: str | None, text: str | None, units: str | None) -> Any:
        return updates(view.look_up(app, model, (unit or "").partition("/")[0], text or "", units))

    def pair(model: str, event: gr.EventData) -> Any:
        return updates(view.pair(app, model, str(event.first), str(event.second)))

    def mark(model: str, unit: str | None, first: str | None, second: str | None) -> Any:
        return updates(view.marked(app, model, unit or "", first, second))

    ordered = {"trigger_mode": "multiple", "concurrency_limit": 1, "concurrency_id": "pick", **QUIET}
    shown.overview.pick(zoom, [url.model, url.units], shown.all(), **ordered)
    for component in (shown.picker, shown.where, page.plan.card):
        component.pick(look, [url.model, url.units], shown.all(), **ordered)
    shown.picker.choose(choose, [url.model, url.units], [url.units, shown.said], **ordered)
    typing = [url.model, url.unit, shown.numbers, url.units]
    looker, *others = choosers
    gr.on([looker.click, shown.numbers.submit], typed, typing, shown.all(), **ordered)
    for what, button in zip(("add", "all", "every", "none"), others, strict=True):
        button.click(pressed(what), typing, [url.units, shown.said], **ordered)
    shown.drawing.pair(pair, url.model, [shown.first, shown.second, shown.path], **ordered)
    for box in (shown.first, shown.second):
        names = [url.model, url.unit, shown.first, shown.second]
        box.input(mark, names, [shown.drawing, shown.path], **ordered)
