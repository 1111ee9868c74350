"""What should I do? Three ways to a budget on the Model tab, each launched with a click.

Element ids: advice-amount, advice-ways, advice-launch-<effort>, advice-message.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from core.errors import ArtifactError, PruneError
from core.results.curves import curves_of_scan
from core.results.sensitivity import SENSITIVITY, read_sensitivity
from core.runs.advice import Advice, advise
from core.runs.artifacts import GROUPS, METRICS, MODEL, PLAN
from core.runs.timings import newest_here
from core.spec.checks import parse_sparsity
from core.spec.efforts import EFFORTS
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from pruneviz.actions import launch as actions
from pruneviz.components.base import panel
from pruneviz.context import AppContext
from pruneviz.data import runs
from pruneviz.data.room import foreseen
from pruneviz.data.tail import drawn
from pruneviz.figures import states
from pruneviz.figures.render import render
from pruneviz.tabs.parts import LATEST, QUIET

NO_GROUPS = "Analyse this model first: what can go, and what that leaves, follows from its coupled groups."
AMOUNTS = "20 %, or a budget: params=100M, size=8GiB@q4_0, macs=-30%, latency=30ms@1x128"


def build_advice(app: AppContext) -> None:
    """Build the panel where the page stands and wire it."""
    with gr.Accordion("What should I do?", open=True, elem_id="advice"):
        amount = gr.Textbox(
            "20 %", label="How much shall go, or what may it take?", info=AMOUNTS, elem_id="advice-amount",
            max_lines=1,
        )  # fmt: skip
        ways = panel("advice-ways", min_height=220)
        with gr.Row():
            buttons = {
                name: gr.Button(f"Launch: {effort.title}", elem_id=f"advice-launch-{name}", interactive=False)
                for name, effort in EFFORTS.items()
            }
        message = panel("advice-message", visible=False)

    def show(model: str, given: str) -> list[Any]:
        return _shown(app, model, given)

    asked, seen = [app.url.model, amount], [ways, *buttons.values()]
    gr.on([app.tabs["model"].select, app.url.model.change, amount.change], show, asked, seen, **LATEST)
    for name, button in buttons.items():

        def start(model: str, given: str, effort: str = name) -> Any:
            try:
                way = next(each for each in _ways(app, model, given) if each.effort == effort)
                run_dir = actions.launch(app, way.spec)
            except PruneError as error:
                return gr.HTML(states.failure_html(error), visible=True)
            return gr.HTML(states.launched_html(run_dir.name), visible=True)

        button.click(start, asked, message, **QUIET)


def advice_html(ways: Sequence[Advice]) -> Markup:
    """A card per way."""
    return render("advice.html", ways=ways)


def _shown(app: AppContext, model: str, given: str) -> list[Any]:
    """The ways, and which of them can be launched."""
    try:
        ways = _ways(app, model, given)
    except PruneError as error:
        said = states.error_html(str(error), title="Nothing to advise yet")
        return [said, *(gr.Button(interactive=False) for _ in EFFORTS)]
    return [advice_html(ways), *(gr.Button(interactive=not way.problem) for way in ways)]


def _ways(app: AppContext, model: str, given: str) -> list[Advice]:
    """Three ways to what is asked. Raises PruneError."""
    records = app.records(model)
    run = runs.latest(records, model, GROUPS)
    graph = runs.graph_of(run) if run else runs.graph_left(model)
    if graph is None:
        raise ArtifactError(NO_GROUPS)
    asked = RunSpec(model=app.model_spec(model), prune=_amount(given or ""))
    scanned = runs.latest(records, model, SENSITIVITY)
    mine = [r for r in records if r.spec and r.spec.model.source == model and r.metrics and not r.example]

    def held(spec: RunSpec) -> float | None:
        told = foreseen(spec, graph)
        return told.gib if told else None

    def show() -> list[Advice]:
        kept = bool(scanned and curves_of_scan(read_sensitivity(scanned), graph))
        finished = [(record.spec, record.metrics) for record in mine if record.spec]
        return advise(asked, graph, finished, held, scanned=kept)

    timings = newest_here(graph, asked.prune)
    files = [run / GROUPS if run else Path(model) / MODEL / PLAN, *(r.path / METRICS for r in mine)]
    files += [scanned / SENSITIVITY] if scanned else []
    told = (*((str(file), runs.changed(file)) for file in files), timings and timings.at)
    return drawn(app.runs_dir, f"advice for {asked}", told, False, show)


def _amount(given: str) -> PruneSpec:
    """A budget, or a sparsity as a share or in percent. Raises SpecError."""
    typed = given.replace(" ", "")
    if "=" in typed:
        return PruneSpec(target=typed)
    return PruneSpec(sparsity=parse_sparsity(given))
