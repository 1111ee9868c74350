"""The Structure tab: which parameters belong together, and what removing one unit takes along and saves.

Element ids: structure-state, structure-launch, structure-content, structure-about, structure-map,
structure-title, structure-units, structure-number, structure-cost, structure-drawing, structure-members,
structure-refused, structure-unit. Cells of the map are
`#structure-map .pv-cell[data-group="L04.ffn_channel"]`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from core import artifacts
from core.errors import ArtifactError
from core.graph.records import Graph
from pruneviz import runs
from pruneviz.components.base import panel, payload
from pruneviz.components.coupled_structure import cost_html, members_html, structure_svg
from pruneviz.components.structure_map import structure_map, unit_picker
from pruneviz.context import AppContext
from pruneviz.figures.structure import structure_info
from pruneviz.figures.structure_map import about_html, kind_words, map_info, refused_html
from pruneviz.tabs.analysis import QUIET, AnalysisFrame, cached_graph

INTRO = (
    "A unit can only be removed together with every parameter slice it is coupled to. "
    "Choose a layer and kind, then a unit, to see all that goes and what it saves."
)


def build_structure_tab(app: AppContext) -> None:
    """Build the tab and wire it."""
    gr.HTML(f'<p class="pv-intro">{INTRO}</p>')
    frame = AnalysisFrame(
        app, "structure", "groups", artifacts.GROUPS, ("groups",),
        "No coupled groups of this model yet",
        "They are found by tracing the model once; no layer names are needed and nothing is changed.",
        "Discover groups",
    )  # fmt: skip
    with frame.content:
        about = panel(elem_id="structure-about")
        with gr.Row():
            with gr.Column(scale=5, min_width=380):
                overview = structure_map(elem_id="structure-map", min_height=400)
            with gr.Column(scale=8, min_width=480):
                with gr.Row(equal_height=True):
                    title = panel(elem_id="structure-title")
                    number = gr.Number(
                        label="Unit", precision=0, minimum=0, elem_id="structure-number",
                        scale=0, min_width=210,
                    )  # fmt: skip
                picker = unit_picker(elem_id="structure-units")
                price = panel(elem_id="structure-cost")
                drawing = panel(elem_id="structure-drawing")
        members = panel(elem_id="structure-members")
        refused = panel(elem_id="structure-refused")
        chosen = gr.Textbox("", visible="hidden", elem_id="structure-unit")

    detail = [chosen, title, picker, number, price, drawing, members]

    def load(model: str, run_dir: Path, layer: str | None, before: str | None) -> list[Any]:
        graph = cached_graph(run_dir)
        group, unit = first_choice(graph, layer or "", before or "")
        info = map_info(graph)
        shown = [about_html(info), payload(info.to_browser(group)), refused_html(info)]
        return [*shown, *describe(graph, group, unit)]

    def pick(model: str, event: gr.EventData) -> list[Any]:
        return _picked(app, model, str(event.group), int(event.unit))

    def type_unit(model: str, unit: float | None, before: str | None) -> list[Any]:
        group, _, now = (before or "").rpartition("/")
        if unit is None or not group or str(int(unit)) == now:
            return [gr.skip()] * (1 + len(detail))
        return _picked(app, model, group, int(unit))

    frame.wire(load, [about, overview, refused, *detail], [app.url.layer, chosen])
    for component in (overview, picker):  # every pick counts, one after the other
        component.pick(
            pick, app.url.model, [app.url.layer, *detail],
            trigger_mode="multiple", concurrency_limit=1, concurrency_id="pick", **QUIET,
        )  # fmt: skip
    number.submit(type_unit, [app.url.model, number, chosen], [app.url.layer, *detail], **QUIET)
    number.blur(type_unit, [app.url.model, number, chosen], [app.url.layer, *detail], **QUIET)


def first_choice(graph: Graph, layer: str, before: str) -> tuple[str, int]:
    """Group and unit to open with: those chosen before if they fit the layer asked for, else the first."""
    group_id, _, unit = before.rpartition("/")
    group = graph.by_id.get(group_id)
    wanted = int(layer) if layer.isdecimal() else None
    fits = group is not None and unit.isdecimal() and int(unit) < group.units
    if group and fits and (wanted is None or group.layer in (None, wanted)):
        return group_id, int(unit)
    order = ("query_head", "ffn_channel", "kv_group", "residual_channel")
    kinds = [*order, *{g.kind for g in graph.groups if g.kind not in order}]
    groups = [g for g in graph.groups if wanted is None or g.layer == wanted] or list(graph.groups)
    if not groups:
        raise ArtifactError("No coupled groups were found in this model; see the log of the run.")
    return min(groups, key=lambda g: kinds.index(g.kind)).id, 0


def describe(graph: Graph, group_id: str, unit: int) -> list[Any]:
    """One update per element of the detail."""
    info = structure_info(graph, group_id, unit)
    kind = kind_words(info.kind)[3]
    where = "all layers" if info.layer is None else f"layer {info.layer}"
    count = sum(part.times for part in info.slices if not part.stays)
    words = f"{count} parameter slices go together" if count != 1 else "one parameter slice goes"
    title = f'<h3 class="pv-unit-title">{kind} {unit}, {where}</h3><p class="pv-quiet">{words}.</p>'
    grid = {"group": group_id, "units": info.units, "unit": unit, "word": kind}
    number = gr.Number(unit, maximum=info.units - 1, label=f"{kind}, 0 to {info.units - 1}")
    table = f'<div class="pv-card"><h3>Everything in this unit</h3>{members_html(info)}</div>'
    return [f"{group_id}/{unit}", title, payload(grid), number, cost_html(info), structure_svg(info), table]


def _picked(app: AppContext, model: str, group_id: str, unit: int) -> list[Any]:
    """The layer for the address and the detail of the unit; nothing changes if there is no such unit."""
    run_dir = runs.latest(app.runs_dir, model, artifacts.GROUPS)
    graph = cached_graph(run_dir) if run_dir else None
    group = graph.by_id.get(group_id) if graph else None
    if graph is None or group is None or not 0 <= unit < group.units:
        return [gr.skip()] * 8
    layer = gr.skip() if group.layer is None else str(group.layer)
    return [layer, *describe(graph, group_id, unit)]
