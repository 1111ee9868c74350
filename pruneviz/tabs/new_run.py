"""The New run form of the Runs tab, with an exact preview of what it would leave.

Element ids: new-run, new-preview, new-command, new-launch, new-discover, new-message; those of its fields
stand in `new_run_fields.py`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import gradio as gr

from core.errors import ArtifactError, PruneError
from core.graph.records import Graph
from core.methods import METHODS
from core.plan.cost import cost
from core.results.scores import SCORES, ranked_by, read_all_scores
from core.runs.advice import takes
from core.runs.artifacts import GROUPS
from core.spec.efforts import CHOICE, effort_of
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from core.spec.units import MANUAL
from pruneviz.actions import launch as actions
from pruneviz.actions.forms import (
    FILLED,
    OF_EFFORTS,
    OF_RANKING,
    OWN,
    REST,
    effort_start,
    form_from,
    form_of,
    recipe_start,
    spec_from,
    training_start,
)
from pruneviz.components.base import panel, payload
from pruneviz.context import AppContext, memory
from pruneviz.data import exports, methods, room, runs
from pruneviz.figures import states
from pruneviz.figures.preview import preview_html, preview_info
from pruneviz.figures.training_options import options_info, own_options_info, to_browser
from pruneviz.tabs.new_run_fields import NewRun, build_fields
from pruneviz.tabs.opening import wire_opening
from pruneviz.tabs.parts import LATEST, QUIET

#: What the button says, and what it says where the memory that the run needs is not free.
LAUNCH, ANYWAY = "Launch", "Launch anyway"
#: What another preset empties first.
OF_PRESETS = ("prune.kinds", "calibration.name", "recover.method", "recover.data", "recipe", REST)


def build_new_run(app: AppContext) -> NewRun:
    """Build the form inside an accordion and wire it."""
    with gr.Accordion("New run", open=False, elem_id="new-run") as box, gr.Row(equal_height=False):
        with gr.Column(scale=3):
            model = ModelSpec(device=app.device, device_map=app.device_map, max_memory=app.max_memory)
            start = RunSpec(model=model, cluster=app.cluster)
            fields = build_fields(form_from(start))
        with gr.Column(scale=2):
            preview = panel("new-preview", min_height=320)
            command = gr.Textbox(
                label="The same run from a shell", lines=2, interactive=False, elem_id="new-command",
                buttons=["copy"],
            )  # fmt: skip
            message = panel("new-message", visible=False)
            with gr.Row():
                launch = gr.Button(LAUNCH, variant="primary", elem_id="new-launch", scale=0)
                discover = gr.Button("Discover groups", elem_id="new-discover", scale=0)
    launched = memory("new-launched")
    form = NewRun(box, fields, launched)
    _wire(app, form, preview, command, message, launch, discover)
    _wire_method(app, form)
    wire_opening(app, form)
    return form


def _wire(
    app: AppContext,
    form: NewRun,
    preview: gr.HTML,
    command: gr.Textbox,
    message: gr.HTML,
    launch: gr.Button,
    discover: gr.Button,
) -> None:
    fields = form.fields
    asked, sparsity = [app.url.model, *fields.by_path.values()], fields["prune.sparsity"]
    seen = [preview, command, launch, fields.effort]

    def show(model: str, *values: Any) -> list[Any]:
        return _preview(app, model, values)

    def start(model: str, *values: Any) -> list[Any]:
        message, launched = _launch(
            app, lambda: _settled(spec_from(app.model_spec(model), form_of(values)), _graph(app, model))
        )
        # Out of the way: the run is what there is to see now.
        return [message, launched, gr.Accordion(open=False) if isinstance(launched, str) else gr.skip()]

    def find_groups(model: str) -> list[Any]:
        return _launch(app, lambda: actions.explore_spec(app, model, ("groups",)))

    fields.slider.input(None, fields.slider, sparsity, js="(v) => String(v)", api_visibility="private")
    sparsity.change(None, sparsity, fields.slider, js=_TO_SLIDER, api_visibility="private")
    triggers = [field.change for field in fields.by_path.values()]
    gr.on(
        [app.tabs["runs"].select, app.url.model.change, form.launched.change, *triggers],
        show, asked, seen, **LATEST,
    )  # fmt: skip
    launch.click(start, asked, [message, form.launched, form.box], **QUIET)
    discover.click(find_groups, app.url.model, [message, form.launched], **QUIET)


def _wire_method(app: AppContext, form: NewRun) -> None:
    """Show what the method asks for; a preset that somebody chooses fills in the rest."""
    fields = form.fields
    method, units, preset, own = (fields[path] for path in ("prune.method", "prune.units", "preset", OWN))
    ranking = [fields[path] for path in OF_RANKING]
    filled = [preset, fields["recipe"], *(fields[path] for path in FILLED)]

    def asked_of(name: str) -> dict[Any, Any]:
        trains = methods.trains(name)
        shown = {units: name == MANUAL, fields.ranking: name != MANUAL, fields.training: trains}
        shown[fields.every] = bool(methods.options(name))
        shown |= dict.fromkeys(ranking, not trains)
        return {field: gr.update(visible=visible) for field, visible in shown.items()}

    def start(name: str, preset_name: str) -> dict[Any, Any]:
        return {fields[path]: value for path, value in training_start(name, preset_name).items()}

    def other_preset(name: str, preset_name: str | None) -> dict[Any, Any]:
        """What it says; text and kinds of the preset before do not stay, a target that was typed does."""
        if not preset_name:  # the list was closed again, nothing was chosen
            return {preset: gr.skip()}
        fresh = form_from(RunSpec())
        usual = {fields[path]: fresh[path] for path in OF_PRESETS}
        return {**usual, **start(name, preset_name)}

    def first_preset(name: str, before: str | None) -> dict[Any, Any]:
        """What the method's own preset says; after a training, a method that ranks needs few windows."""
        if methods.trains(name):
            component = METHODS[name].component
            chosen = gr.Dropdown(list(component.presets), value=component.preset)
            return {preset: chosen, **start(name, component.preset)}
        fresh = form_from(RunSpec())
        emptied = {fields[path]: fresh[path] for path in ("preset", "steps", OWN)}
        windows = {fields[path]: fresh[path] for path in FILLED if path != "prune.sparsity"} if before else {}
        return {**windows, **emptied}

    gr.on([app.tabs["runs"].select, method.change], _about, method, fields.about, **LATEST)
    method.change(asked_of, method, [units, fields.ranking, fields.training, fields.every, *ranking], **QUIET)
    method.input(first_preset, [method, preset], filled, **QUIET)
    preset.input(other_preset, [method, preset], filled, **QUIET)
    gr.on(
        [method.change, preset.change, own.change],
        _options, [method, preset, own], fields.table, **LATEST,
    )  # fmt: skip
    fields.table.set(_own_options, None, own, **QUIET)

    of_efforts = {path: fields[path] for path in OF_EFFORTS}

    def spend(name: str, said: str, method: str) -> dict[Any, Any]:
        stay = CHOICE if method == MANUAL else ()
        start = effort_start(name, said)
        return {of_efforts[path]: value for path, value in start.items() if path not in stay}

    asked = [fields.effort, fields[REST], fields["prune.method"]]
    fields.effort.input(spend, asked, list(of_efforts.values()), **QUIET)

    recover, recipe, rest = fields["recover.method"], fields["recipe"], fields[REST]

    def train(way: str, chosen: str | None, said: str, model: str) -> dict[Any, Any]:
        """A training has a recipe from the start: that of two cores for the demo."""
        if way == "none" or chosen:
            return {recipe: gr.skip()}
        return follow("demo" if model == "demo" else "paper", said, way)

    def follow(name: str | None, said: str, way: str) -> dict[Any, Any]:
        if not name:
            return {recipe: gr.skip()}
        return {fields[path]: value for path, value in recipe_start(name, said, way).items()}

    trained = [recipe, recover, fields["recover.data"], rest]
    recover.input(train, [recover, recipe, rest, app.url.model], trained, **QUIET)
    recipe.input(follow, [recipe, rest, recover], trained, **QUIET)


#: A share in range moves the slider; anything else leaves it where it is.
_TO_SLIDER = """(text) => {
  const typed = String(text).replace(",", ".").trim(), percent = typed.endsWith("%");
  const value = percent ? Number(typed.slice(0, -1)) / 100 : Number(typed);
  const good = typed !== "" && typed !== "%" && value >= 0 && value < 1;
  return good ? Math.min(value, 0.95) : {__type__: "update"};
}"""


def _preview(app: AppContext, model: str, values: tuple[Any, ...]) -> list[Any]:
    """Preview, command, whether Launch makes sense, and whose effort this is."""
    try:
        graph = _graph(app, model)
        asked = spec_from(app.model_spec(model), form_of(values))
        spec = _settled(asked, graph)
        held = room.foreseen(spec, graph) if graph else None
        info = preview_info(spec, graph, _scores(app, model, spec), exports.config_of(model), held)
    except PruneError as error:
        problem = states.error_html(str(error), title="This cannot be launched yet")
        return [problem, "", gr.Button(LAUNCH, interactive=False), None]
    if graph and (time := _time(app, spec, graph)):
        info = replace(info, needs=f"{info.needs} Takes {time}.".strip())
    label = LAUNCH if held is None or held.fits else ANYWAY
    return [
        preview_html(info),
        info.command,
        gr.Button(label, interactive=not info.problem),
        effort_of(asked),
    ]


def _time(app: AppContext, spec: RunSpec, graph: Graph) -> str:
    """How long a run will take, in words; empty where nothing like it was measured."""
    mine = [(r.spec, r.metrics) for r in app.records(spec.model.source) if r.spec and not r.example]
    return takes(spec, cost(graph, {}).macs_per_token, mine)


def _settled(spec: RunSpec, graph: Graph | None) -> RunSpec:
    """The same, settled as far as the model is known: a run does the rest."""
    return spec.settled(unseen=graph.unseen(*spec.prune.kinds)) if graph else spec


def _graph(app: AppContext, model: str) -> Graph | None:
    run = app.latest(model, GROUPS)
    return runs.graph_of(run) if run else runs.graph_left(model)


def _scores(app: AppContext, model: str, spec: RunSpec) -> Any:
    """Kept scores to rank this run by, or None: damaged ones count as none, a run makes its own anyway."""
    run = app.latest(model, SCORES)
    try:
        return read_all_scores(run).get(ranked_by(spec.prune.method, spec.prune.scope)) if run else None
    except ArtifactError:
        return None


def _launch(app: AppContext, make: Any) -> list[Any]:
    try:
        spec: RunSpec = make()
        run_dir = actions.launch(app, spec)
    except PruneError as error:
        return [gr.HTML(states.failure_html(error), visible=True), gr.skip()]
    return [gr.HTML(visible=False), run_dir.name]


def _about(name: str) -> str:
    """Two sentences on the method, and where it is from."""
    method = methods.find(name)
    if method is None:
        return states.paragraph_html("\N{NO-BREAK SPACE}")
    source = ", ".join(filter(None, [method.paper, method.equation]))
    return states.paragraph_html(f"{method.summary} ({source})" if source else method.summary)


def _options(method: str, preset: str | None, own: str | None) -> Any:
    """The table of a method's own options."""
    if not methods.options(method):
        return gr.skip()
    if not methods.trains(method):
        beside = json.loads(own or "{}")
        return payload(to_browser("", own_options_info(method, beside), own or ""))
    component = METHODS[method].component
    preset, beside = preset or component.preset, json.loads(own or "{}")
    asked = {**component.presets[preset].get(OWN, {}), **beside}
    try:
        first = methods.origin(method, asked)
    except PruneError:  # the preview says what is wrong
        first = None
    found = options_info(method, preset, beside, first)
    return payload(to_browser(preset, found, own or ""))


def _own_options(event: gr.EventData) -> str:
    return str(event.options)
