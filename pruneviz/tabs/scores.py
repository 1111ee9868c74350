"""The Scores tab: how much each unit would be missed, by every criterion, and where criteria agree.

Element ids: scores-criteria, scores-samples, scores-length, scores-state, scores-launch, scores-content,
scores-criterion, scores-units, scores-within, scores-order, scores-about, scores-heat, scores-agree,
scores-agreement, scores-versus, scores-layer, scores-scatter. Inside the scatter: scores-point, scores-
chosen, scores-share, scores-lowest, scores-clear, scores-take. How large features are:
`pruneviz.tabs.scores_activations`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from core.errors import ArtifactError
from core.graph.records import Graph
from core.registry import Entry
from core.results.scores import SCORES, Scores, read_scores
from core.runs.artifacts import read_spec
from core.spec.calibration import DataSpec
from core.spec.fields import OPTIONS
from core.spec.recommended import RECOMMENDED
from core.spec.run import RunSpec
from pruneviz.actions import launch as actions
from pruneviz.actions.forms import read
from pruneviz.components.base import panel, payload
from pruneviz.components.plotly_figure import figure_payload, plotly_figure
from pruneviz.components.score_scatter import score_scatter
from pruneviz.context import AppContext
from pruneviz.data import methods, runs
from pruneviz.figures import states
from pruneviz.figures.agreement import agreement_figure, agreement_info, pair_info
from pruneviz.figures.render import render
from pruneviz.figures.scores import (
    ORDERS,
    UNIT_WORDS,
    WITHIN,
    groups_scored,
    heat_figure,
    heat_info,
    kinds_scored,
)
from pruneviz.tabs.analysis import AnalysisFrame
from pruneviz.tabs.parts import LATEST, QUIET, Parts, into_plan, intro, number_box
from pruneviz.tabs.scores_activations import ActivationsPart, build_activations, show_activations

INTRO = (
    "A criterion says how much a unit would be missed. Compare what several say of the same units, "
    "scored in one pass over the same text, before you trust one of them."
)
ALL = "All layers"
#: Of more units than this only one layer is drawn at once: a page with millions of points stands still.
MOST_POINTS = 400_000


@dataclass(frozen=True)
class ScoresPage(Parts):
    """Everything that shows scores."""

    criterion: gr.Dropdown
    kind: gr.Radio
    within: gr.Radio
    order: gr.Radio
    about: gr.HTML
    heat: gr.HTML
    agree: gr.HTML
    agreement: gr.HTML
    versus: gr.Dropdown
    layer: gr.Dropdown
    scatter: gr.HTML
    activations: ActivationsPart


def build_scores_tab(app: AppContext) -> None:
    """Build the tab and wire it."""
    intro(INTRO)
    form = _build_form()
    frame = AnalysisFrame(
        app, "scores", "scores", SCORES, ("groups", "scores"),
        "No scores of this model yet",
        "The model reads a calibration text once and every unit is scored by all criteria chosen above.",
        "Score units", again=True,
    )  # fmt: skip
    with frame.content:
        page = _build_content()
    url = app.url
    chosen = [url.criterion, url.versus, url.kind, url.layer, page.within, page.order]
    beside = page.activations.beside

    def ask(model: str, chosen: list[str], windows: str, tokens: str) -> RunSpec:
        spec = actions.explore_spec(app, model, ("groups", "scores"), criteria=tuple(chosen))
        data = {"samples": read("calibration.samples", windows), "length": read("calibration.length", tokens)}
        return replace(spec, calibration=DataSpec(**data))

    def load(model: str, run_dir: Path, other: str, *choices: str) -> dict[Any, Any]:
        features = show_activations(app.runs_dir, run_dir, other)
        return page.filled({**show(run_dir, *choices), "activations": features})

    def redraw(tab: str, model: str, run: str, *choices: str) -> Any:
        run_dir = frame.standing(model, run).run_dir if tab == "scores" else None
        try:
            return page.filled(show(run_dir, *choices)) if run_dir else gr.skip()
        except ArtifactError:  # damaged since the tab was opened, which then says it
            return gr.skip()

    def compare(model: str, run: str, other: str) -> Any:
        run_dir = frame.standing(model, run).run_dir
        try:
            features = show_activations(app.runs_dir, run_dir, other) if run_dir else {}
        except ArtifactError:
            features = {}
        return page.activations.filled(features) if features else gr.skip()

    frame.wire(load, page.all(), [beside, *chosen], ask=(ask, form))
    _wire(app, page, redraw, chosen)
    beside.input(compare, [url.model, url.run, beside], page.activations.all(), **QUIET)


def _build_form() -> list[Any]:
    """What the button scores with, in the order its request reads them."""
    standard = RunSpec()
    with gr.Row(equal_height=True, elem_classes="pv-field-row"):
        criteria = gr.Dropdown(
            [RECOMMENDED, *methods.ranking()], value=list(standard.explore.criteria), multiselect=True,
            label=OPTIONS["explore.criteria"].title, elem_id="scores-criteria", scale=5,
        )  # fmt: skip
        samples = number_box(
            standard.calibration.samples, label=OPTIONS["calibration.samples"].title, scale=1, min_width=120,
            elem_id="scores-samples",
        )  # fmt: skip
        length = number_box(
            standard.calibration.length, label=OPTIONS["calibration.length"].title, scale=1, min_width=120,
            elem_id="scores-length",
        )  # fmt: skip
    return [criteria, samples, length]


def _build_content() -> ScoresPage:
    """Everything that shows scores."""
    with gr.Row(equal_height=True):
        criterion = gr.Dropdown([], label="Criterion", elem_id="scores-criterion", min_width=190)
        kind = gr.Radio([], label="Units", elem_id="scores-units", min_width=330)
        within = gr.Radio(
            list(WITHIN), value="Whole model", label="Scores relative to", elem_id="scores-within",
            min_width=210,
        )  # fmt: skip
        order = gr.Radio(
            list(ORDERS), value="Lowest first", label="Order", elem_id="scores-order", min_width=220
        )
    about = panel("scores-about")
    heat = plotly_figure(elem_id="scores-heat", min_height=560)
    with gr.Row():
        with gr.Column(scale=6, min_width=420):
            agree = panel("scores-agree", _agree_html(several=True))
            agreement = plotly_figure(elem_id="scores-agreement", min_height=330)
        with gr.Column(scale=7, min_width=460):
            with gr.Row():
                versus = gr.Dropdown([], label="Compare with", elem_id="scores-versus", min_width=160)
                layer = gr.Dropdown([ALL], value=ALL, label="Layer", elem_id="scores-layer", min_width=120)
            scatter = score_scatter(elem_id="scores-scatter", min_height=470)
    return ScoresPage(
        criterion,
        kind,
        within,
        order,
        about,
        heat,
        agree,
        agreement,
        versus,
        layer,
        scatter,
        build_activations(),
    )


_AGREEMENT = (
    "Spearman’s rank correlation: 1 where two criteria put units in the same order, 0 where one says "
    "nothing of the other. Click a cell to compare the two unit by unit."
)
_ALONE = "One criterion was scored here, with nothing to hold it against: name a second one above, and score."


def _agree_html(*, several: bool) -> str:
    return f"<h3>Do they agree?</h3>{states.paragraph_html(_AGREEMENT if several else _ALONE)}"


def _wire(app: AppContext, page: ScoresPage, redraw: Any, inputs: list[Any]) -> None:
    """Choices go to the address, and what stands there is drawn."""
    url, browser = app.url, dict[str, Any](api_visibility="private")
    for component, box in ((page.criterion, url.criterion), (page.versus, url.versus)):
        component.input(None, component, box, js="(name) => name", **browser)
    page.kind.input(lambda word: _kind(word), page.kind, url.kind, **QUIET)
    page.layer.input(None, page.layer, url.layer, js=_LAYER, **browser)
    into_plan(page.scatter, app)

    def picked(event: gr.EventData) -> dict[Any, str]:
        return {url.criterion: str(event.x), url.versus: str(event.y)}

    page.agreement.pick(picked, None, [url.criterion, url.versus], **QUIET)
    changes = [box.change for box in (url.criterion, url.versus, url.kind, url.layer)]
    gr.on(
        [*changes, page.within.input, page.order.input], redraw, [url.tab, url.model, url.run, *inputs],
        page.all(), **LATEST,
    )  # fmt: skip


_LAYER = "(name) => /^[0-9]+$/.test(name) ? String(name) : ''"


def _kind(word: str) -> str:
    return next((kind for kind, (several, _) in UNIT_WORDS.items() if several == word), "")


def explained_html(name: str, run_dir: Path) -> str:
    """A criterion in two sentences, its equation and paper, and the text it was taken on."""
    method = methods.find(name) or Entry(name, None, "", "", ("text",), "")
    spec = read_spec(run_dir)
    data, text = spec.calibration, spec.extra.get("calibration", {}).get("name", spec.calibration.name)
    on = f"scored on {data.samples:,} windows of {data.length:,} tokens of “{text}”"
    return render(
        "criterion.html", name=name, method=method, run=run_dir.name,
        on=on if method.needs else "needs no text",
    )  # fmt: skip


@lru_cache(maxsize=2)
def _scores(run_dir: Path, changed: int) -> Scores:
    return read_scores(run_dir)


@lru_cache(maxsize=32)
def _agreement(run_dir: Path, changed: int, kind: str, within: str) -> str:
    """The drawing of how criteria agree: of a large model it takes seconds, and few choices change it."""
    info = agreement_info(_scores(run_dir, changed), runs.graph_of(run_dir), kind, within)
    return figure_payload(agreement_figure(info), f"agreement-{kind}", run_dir.name)


def show(
    run_dir: Path, criterion: str, versus: str, kind: str, layer: str, within: str, order: str
) -> dict[str, Any]:
    """What `ScoresPage` shows; what does not exist in this run falls back to the first that does.

    Raises:
        ArtifactError: the scores are damaged, or hold nothing of this model's groups.
    """
    changed = (run_dir / SCORES).stat().st_mtime_ns
    scores = _scores(run_dir, changed)
    graph = runs.graph_of(run_dir)
    names = list(scores)
    first = criterion if criterion in scores else next(iter(names), "")
    others = [name for name in names if name != first]
    second = versus if versus in scores and others else next(iter(others), "layer")
    kinds = kinds_scored(scores.get(first, {}), graph)
    if not kinds:
        raise ArtifactError(f"{run_dir.name} holds no scores of this model; score its units again.")
    unit_kind = kind if kind in kinds else kinds[0]
    chosen = int(layer) if layer.isdecimal() and int(layer) < len(graph.layer_modules) else None
    measured, sorting = WITHIN.get(within, "model"), ORDERS.get(order, "sorted")
    heat = heat_info(scores[first], graph, first, unit_kind, within=measured, order=sorting)
    units = sum(group.units for group in groups_scored(scores[first], graph, unit_kind))
    layers = [*([ALL] if units <= MOST_POINTS else []), *map(str, range(len(graph.layer_modules)))]
    chosen = 0 if chosen is None and ALL not in layers else chosen
    against = scores[second] if others else _layers(graph)
    pairs = pair_info((first, scores[first]), (second, against), graph, unit_kind, chosen)
    return {
        "criterion": gr.Dropdown(names, value=first),
        "kind": gr.Radio([UNIT_WORDS[each][0] for each in kinds], value=UNIT_WORDS[unit_kind][0]),
        "about": explained_html(first, run_dir),
        "heat": figure_payload(heat_figure(heat), f"scores-{first}-{unit_kind}", run_dir.name),
        "agree": _agree_html(several=bool(others)),
        "agreement": gr.HTML(_agreement(run_dir, changed, unit_kind, measured), visible=bool(others)),
        "versus": gr.Dropdown(
            names if others else [], value=second if others else None, visible=bool(others)
        ),
        "layer": gr.Dropdown(layers, value=ALL if chosen is None else str(chosen)),
        "scatter": payload(pairs.to_browser()),
    }


def _layers(graph: Graph) -> dict[str, NDArray[np.float32]]:
    """What a single criterion is drawn against: every unit's layer."""
    return {each.id: np.full(each.units, each.layer or 0, np.float32) for each in graph.groups}
