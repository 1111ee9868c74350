"""The Scores tab: how much each unit would be missed, by every criterion, and where criteria agree.

Element ids: scores-criteria, scores-samples, scores-length, scores-state, scores-launch, scores-content,
scores-criterion, scores-units, scores-within, scores-order, scores-about, scores-heat, scores-agreement,
scores-versus, scores-layer, scores-scatter. Inside the scatter: scores-point, scores-chosen, scores-share,
scores-lowest, scores-clear, scores-take.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from core.errors import ArtifactError
from core.registry import Entry
from core.results.scores import SCORES, Scores, read_scores
from core.runs.artifacts import read_spec
from core.spec.model import DataSpec
from core.spec.run import RunSpec
from pruneviz.actions import launch as actions
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
    heat_figure,
    heat_info,
    kinds_scored,
)
from pruneviz.tabs.analysis import QUIET, AnalysisFrame, standing
from pruneviz.tabs.parts import into_plan, intro

INTRO = (
    "A criterion says how much a unit would be missed. Compare what several say of the same units, "
    "scored in one pass over the same text, before you trust one of them."
)
ALL = "All layers"


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
    inputs = [url.criterion, url.versus, url.kind, url.layer, page[2], page[3]]

    def ask(model: str, chosen: list[str], windows: int, tokens: int) -> RunSpec:
        spec = actions.explore_spec(app, model, ("groups", "scores"), criteria=tuple(chosen))
        return replace(spec, calibration=DataSpec(samples=windows, length=tokens))

    def load(model: str, run_dir: Path, *given: str) -> list[Any]:
        return show(run_dir, *given)

    def redraw(tab: str, model: str, *given: str) -> list[Any]:
        found = standing(app.runs_dir, model, SCORES, "scores").run_dir if tab == "scores" else None
        return show(found, *given) if found else [gr.skip()] * len(page)

    frame.wire(load, page, inputs, ask=(ask, form))
    _wire(app, page, redraw, inputs)

    def explain(model: str, name: str) -> Any:
        found = standing(app.runs_dir, model, SCORES, "scores").run_dir
        return explained_html(name, found) if found else gr.skip()


def _build_form() -> list[Any]:
    """What the button scores with, in the order its request reads them."""
    standard = RunSpec()
    with gr.Row(equal_height=True, elem_classes="pv-field-row"):
        criteria = gr.Dropdown(
            methods.ranking(), value=list(standard.explore.criteria), multiselect=True, scale=5,
            label="Criteria to score with", elem_id="scores-criteria",
        )  # fmt: skip
        samples = gr.Number(
            standard.calibration.samples, label="Windows of text", precision=0, minimum=1, scale=1,
            min_width=120, elem_id="scores-samples",
        )  # fmt: skip
        length = gr.Number(
            standard.calibration.length, label="Tokens in each", precision=0, minimum=8, scale=1,
            min_width=120, elem_id="scores-length",
        )  # fmt: skip
    return [criteria, samples, length]


def _build_content() -> list[Any]:
    """Everything that shows scores, in the order `show` fills it."""
    with gr.Row(equal_height=True):
        criterion = gr.Dropdown([], label="Criterion", elem_id="scores-criterion", min_width=190)
        kind = gr.Radio([], label="Units", elem_id="scores-units", min_width=330)
        within = gr.Radio(
            list(WITHIN),
            value="Whole model",
            label="Measured against",
            elem_id="scores-within",
            min_width=210,
        )
        order = gr.Radio(
            list(ORDERS), value="Lowest first", label="Order", elem_id="scores-order", min_width=220
        )
    about = panel("scores-about")
    heat = plotly_figure(elem_id="scores-heat", min_height=560)
    with gr.Row():
        with gr.Column(scale=6, min_width=420):
            gr.HTML(f"<h3>Do they agree?</h3>{states.paragraph_html(_AGREEMENT)}", apply_default_css=False)
            agreement = plotly_figure(elem_id="scores-agreement", min_height=330)
        with gr.Column(scale=7, min_width=460):
            with gr.Row():
                versus = gr.Dropdown([], label="Compare with", elem_id="scores-versus", min_width=160)
                layer = gr.Dropdown([ALL], value=ALL, label="Layer", elem_id="scores-layer", min_width=120)
            scatter = score_scatter(elem_id="scores-scatter", min_height=470)
    return [criterion, kind, within, order, about, heat, agreement, versus, layer, scatter]


_AGREEMENT = (
    "Spearman’s rank correlation: 1 where two criteria put units in the same order, 0 where one says "
    "nothing of the other. Click a cell to compare the two unit by unit."
)


def _wire(app: AppContext, page: list[Any], redraw: Any, inputs: list[Any]) -> None:
    """Choices go to the address, and what stands there is drawn."""
    criterion, kind, within, order, _, _, agreement, versus, layer, _ = page
    url, browser = app.url, {"api_visibility": "private"}
    for component, box in ((criterion, url.criterion), (versus, url.versus)):
        component.input(None, component, box, js="(name) => name", **browser)
    kind.input(lambda word: _kind(word), kind, url.kind, **QUIET)
    layer.input(None, layer, url.layer, js="(name) => /^[0-9]+$/.test(name) ? String(name) : ''", **browser)
    into_plan(page[-1], app)
    agreement.pick(_picked, None, [url.criterion, url.versus], **QUIET)
    changes = [box.change for box in (url.criterion, url.versus, url.kind, url.layer)]
    read = [url.tab, url.model, *inputs]
    gr.on([*changes, within.input, order.input], redraw, read, page, trigger_mode="always_last", **QUIET)


def _kind(word: str) -> str:
    return next((kind for kind, (several, _) in UNIT_WORDS.items() if several == word), "")


def _picked(event: gr.EventData) -> list[str]:
    return [str(event.x), str(event.y)]


def explained_html(name: str, run_dir: Path) -> str:
    """A criterion in two sentences, its equation and paper, and the text it was taken on."""
    method = methods.find(name) or Entry(name, None, "", "", ("text",), "")
    spec = read_spec(run_dir)
    data, text = spec.calibration, spec.extra.get("calibration", {}).get("name", spec.calibration.name)
    on = f"scored on {data.samples:,} windows of {data.length:,} tokens of “{text}”"
    return render(
        "criterion.html",
        name=name,
        method=method,
        run=run_dir.name,
        on=on if method.needs else "needs no text",
    )


@lru_cache(maxsize=2)
def _scores(run_dir: Path, changed: int) -> Scores:
    return read_scores(run_dir)


def show(
    run_dir: Path,
    criterion: str,
    versus: str,
    kind: str,
    layer: str,
    within: str,
    order: str,
) -> list[Any]:
    """One update per element; what does not exist in this run falls back to the first that does.

    Raises:
        ArtifactError: the scores are damaged, or hold nothing of this model's groups.
    """
    scores = _scores(run_dir, (run_dir / SCORES).stat().st_mtime_ns)
    graph = runs.graph_of(run_dir)
    names = list(scores)
    first = criterion if criterion in scores else next(iter(names), "")
    second = versus if versus in scores else next((name for name in names if name != first), first)
    kinds = kinds_scored(scores.get(first, {}), graph)
    if not kinds:
        raise ArtifactError(f"{run_dir.name} holds no scores of this model; score its units again.")
    unit_kind = kind if kind in kinds else kinds[0]
    one = int(layer) if layer.isdecimal() and int(layer) < len(graph.layer_modules) else None
    measured, sorting = WITHIN.get(within, "model"), ORDERS.get(order, "sorted")
    heat = heat_info(scores[first], graph, first, unit_kind, within=measured, order=sorting)
    agreement = agreement_info(scores, graph, unit_kind, measured)
    pairs = pair_info((first, scores[first]), (second, scores[second]), graph, unit_kind, one)
    layers = [ALL, *map(str, range(len(graph.layer_modules)))]
    return [
        gr.Dropdown(names, value=first),
        gr.Radio([UNIT_WORDS[one_kind][0] for one_kind in kinds], value=UNIT_WORDS[unit_kind][0]),
        gr.skip(),
        gr.skip(),
        explained_html(first, run_dir),
        figure_payload(heat_figure(heat)),
        figure_payload(agreement_figure(agreement)),
        gr.Dropdown(names, value=second),
        gr.Dropdown(layers, value=ALL if one is None else str(one)),
        payload(pairs.to_browser()),
    ]
