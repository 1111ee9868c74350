"""The Sweep tab: many ways to prune the model, measured side by side while one runs.

Element ids: sweep-methods, sweep-sparsities, sweep-scopes, sweep-reconstruct, sweep-drops, sweep-seeds,
sweep-samples, sweep-calibration, sweep-ppl, sweep-ppl-also,
sweep-count, sweep-state, sweep-launch, sweep-content, sweep-about, sweep-empty, sweep-text, sweep-scale,
sweep-chart, sweep-table, sweep-point, sweep-run, sweep-message.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from core.criteria.registry import check_scopes
from core.errors import InputError, PruneError
from core.methods import criteria_of
from core.results import words
from core.results.sweep import SWEEP, planned, read_sweep, run_of
from core.runs.artifacts import read_spec
from core.runs.watch import log_tail
from core.spec.choices import RECONSTRUCTIONS, SCOPES
from core.spec.depth import NOTHING, drop_entries
from core.spec.fields import OPTIONS, changed, field_of
from core.spec.recommended import RECOMMENDED
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from pruneviz import scripts
from pruneviz.actions import launch as actions
from pruneviz.actions.forms import held, read
from pruneviz.components.base import panel
from pruneviz.components.plotly_figure import figure_payload, plotly_figure
from pruneviz.context import AppContext
from pruneviz.data import methods, runs
from pruneviz.data.runs import RunRecord
from pruneviz.figures import states
from pruneviz.figures.preview import warnings_for
from pruneviz.figures.render import render
from pruneviz.figures.sweep import (
    about_html,
    label,
    sweep_figure,
    sweep_info,
    table_html,
    unmeasured_html,
)
from pruneviz.tabs.analysis import AnalysisFrame, Standing
from pruneviz.tabs.parts import LATEST, QUIET, Parts, intro, message

INTRO = (
    "Which method, how much, on how much text? A sweep measures every combination of the values below, with "
    "the model loaded once, and shows which points no other beats in both size and perplexity."
)
SCALES = ["Automatic", "Linear", "Logarithmic"]
TEXTS = ("calibration.name", "evaluate.text", "evaluate.also")


@dataclass(frozen=True)
class SweepPage(Parts):
    """Sentence, what stands for a chart without points, column of text, axis and chart, table, row of the
    chosen point and its button, and what went wrong.
    """

    about: gr.HTML
    empty: gr.HTML
    lines: gr.Column
    text: gr.Radio
    scale: gr.Radio
    chart: gr.HTML
    table: gr.HTML
    chooser: gr.Row
    point: gr.Dropdown
    run: gr.Button
    message: gr.HTML


def build_sweep_tab(app: AppContext) -> None:
    """Build the tab and wire it."""
    intro(INTRO)
    axes = _build_form()
    count = panel("sweep-count", styled=True)
    frame = AnalysisFrame(
        app, "sweep", "sweep", SWEEP, (), "No sweep of this model yet",
        "Every point takes about as long as measuring every text once; scoring is shared between points.",
        "Launch sweep", again=True, growing=True,
    )  # fmt: skip
    with frame.content:
        page = _build_content()

    def load(model: str, run_dir: Path, scaled: str, text: str | None, chosen: str | None) -> dict[Any, Any]:
        return page.filled(shown(run_dir, scaled, chosen, text))

    frame.wire(
        load, page.all(), [page.scale, page.text, page.point], ask=(functools.partial(spec_from, app), axes)
    )
    _wire(app, page, frame)
    gr.on(
        [app.tabs["sweep"].select, *[axis.change for axis in axes]],
        lambda model, *values: _count(app, model, *values), [app.url.model, *axes], count, **LATEST,
    )  # fmt: skip


def _wire(app: AppContext, page: SweepPage, frame: AnalysisFrame) -> None:
    url = app.url

    def redraw(model: str, run: str, scaled: str, text: str | None) -> list[Any]:
        run_dir = frame.standing(model, run).run_dir
        if run_dir is None:
            return [gr.skip()] * 3
        seen = shown(run_dir, scaled, None, text)
        return [seen["about"], seen["chart"], seen["table"]]

    def pick(event: gr.EventData) -> dict[Any, Any]:
        return {page.point: str(event.customdata[0]), page.run: gr.Button(interactive=True)}

    def launch(model: str, run: str, chosen: str | None) -> dict[Any, Any]:
        said, made = _launch(app, model, frame.standing(model, run), chosen)
        return {page.message: message(said), **({url.run: made} if made else {})}

    drawn = [page.about, page.chart, page.table]
    for switch in (page.scale, page.text):
        switch.input(redraw, [url.model, url.run, page.scale, page.text], drawn, **QUIET)
    page.chart.pick(pick, None, [page.point, page.run], **QUIET)
    page.point.input(lambda chosen: gr.Button(interactive=bool(chosen)), page.point, page.run, **QUIET)
    launched = page.run.click(launch, [url.model, url.run, page.point], [page.message, url.run], **QUIET)
    to_run = scripts.open_tab("runs", unless="problem")
    launched.then(None, page.message, None, js=to_run, api_visibility="private")


def _build_content() -> SweepPage:
    """What shows a sweep."""
    about = panel("sweep-about", styled=True)
    empty = panel("sweep-empty", visible=False)
    with gr.Row(equal_height=False):
        with gr.Column(scale=7, min_width=560) as lines:
            text = gr.Radio(
                [], label="Text that is drawn", elem_id="sweep-text", container=False, visible=False
            )
            scale = gr.Radio(
                SCALES, value=SCALES[0], label="Perplexity axis", elem_id="sweep-scale", container=False
            )
            chart = plotly_figure(elem_id="sweep-chart", min_height=500)
        with gr.Column(scale=5, min_width=620):
            table = panel("sweep-table", styled=True)
    with gr.Row(equal_height=True, elem_classes="pv-field-row") as chooser:
        point = gr.Dropdown(
            [], label="Chosen point", info="click one in the chart, or choose here",
            elem_id="sweep-point", scale=5,
        )  # fmt: skip
        run = gr.Button("Launch as a run", elem_id="sweep-run", scale=0, interactive=False)
    problem = panel("sweep-message", styled=True, visible=False)
    return SweepPage(about, empty, lines, text, scale, chart, table, chooser, point, run, problem)


def _build_form() -> list[Any]:
    """The axes, in the order of `spec_from`."""
    start = SweepSpec()

    def label_of(name: str) -> str:
        return OPTIONS[f"sweep.{name}"].title

    with gr.Row(equal_height=True):
        ranking = gr.Dropdown(
            [RECOMMENDED, *methods.ranking()], value=list(start.methods), multiselect=True, scale=5,
            label=label_of("methods"), elem_id="sweep-methods", min_width=300,
        )  # fmt: skip
        sparsities = gr.Textbox(
            ", ".join(f"{s:g}" for s in start.sparsities), label=label_of("sparsities"), max_lines=1, scale=2,
            elem_id="sweep-sparsities", min_width=140,
        )  # fmt: skip
        scopes = gr.Dropdown(
            [RECOMMENDED, *SCOPES], value=list(start.scopes), multiselect=True, label=label_of("scopes"),
            elem_id="sweep-scopes", min_width=180, scale=3,
        )  # fmt: skip
        reconstruct = gr.Dropdown(
            [RECOMMENDED, *RECONSTRUCTIONS], value=list(start.reconstruct), multiselect=True,
            label=label_of("reconstruct"), scale=2, elem_id="sweep-reconstruct", min_width=210,
        )  # fmt: skip
        seeds = gr.Textbox(
            "0", label=label_of("seeds"), max_lines=1, elem_id="sweep-seeds", min_width=80, scale=1
        )
        samples = gr.Textbox(
            "16", label=label_of("samples"), max_lines=1, elem_id="sweep-samples", min_width=150, scale=1
        )
    return [ranking, sparsities, scopes, reconstruct, seeds, samples, *_build_rest()]


def _build_rest() -> list[Any]:
    """Blocks that go, what calibrates and what is measured: the last in the order of `TEXTS`."""
    with gr.Row(equal_height=True):
        drops = gr.Textbox(
            drop_entries(SweepSpec().drops)[0], label=OPTIONS["sweep.drops"].title, max_lines=1,
            placeholder="none, layer=2, layer=1+ffn_block=2", elem_id="sweep-drops", min_width=220,
        )  # fmt: skip
        fields = [drops]
        for path in TEXTS:
            option, value = OPTIONS[path], held(path, field_of(RunSpec(), path))
            name = option.flag.removeprefix("--")
            fields.append(
                gr.Textbox(value, label=option.title, max_lines=1, elem_id=f"sweep-{name}", min_width=220)
            )
    return fields


def spec_from(
    app: AppContext,
    model: str,
    ranking: list[str],
    sparsities: str,
    scopes: list[str],
    reconstruct: list[str],
    seeds: str,
    samples: str,
    drops: str = "",
    *texts: str,
) -> RunSpec:
    """What the form asks for; `texts` are those of `TEXTS`, left out for the usual ones. Raises SpecError."""
    asked = SweepSpec(
        tuple(ranking or ()), OPTIONS["sweep.sparsities"].read(sparsities or ""), tuple(scopes or ()),
        tuple(reconstruct or ()), OPTIONS["sweep.seeds"].read(seeds or ""),
        OPTIONS["sweep.samples"].read(samples or ""), OPTIONS["sweep.drops"].read(drops or NOTHING),
    )  # fmt: skip
    spec = replace(app.usual(model), goal="sweep", sweep=asked)
    check_scopes(criteria_of(spec), asked.scopes)
    spec = changed(spec, {path: read(path, text) for path, text in zip(TEXTS, texts, strict=False)})
    for point in planned(spec.settled()):
        run_of(spec, point)  # its parts are checked as they are made
    return spec


def _count(app: AppContext, model: str, *given: Any) -> str:
    try:
        spec = spec_from(app, model, *given)
    except InputError as error:
        return states.notes_html(error)
    asked = spec.sweep
    passes = len(asked.seeds) * len(asked.samples)
    times = f"{passes} pass{'es' if passes > 1 else ''} over calibration text"
    return states.paragraph_html(f"{asked.points:,} point{'s' if asked.points > 1 else ''}, {times}.") + (
        states.notes_html(*warnings_for(spec))
    )


def shown(run_dir: Path, scaled: str, chosen: str | None, text: str | None = None) -> dict[str, Any]:
    """What `SweepPage` shows of a sweep. Raises ArtifactError.

    Args:
        text: the text whose perplexities are drawn, and whose Pareto front; the first if None.
    """
    info = sweep_info(read_sweep(run_dir), text)
    log = info.wide if scaled not in SCALES[1:] else scaled == SCALES[2]
    names = [label(point) for point in info.measured]
    point = gr.Dropdown(names, value=chosen if chosen in names else None)
    record = runs.read_run(run_dir)
    chart = figure_payload(sweep_figure(info, log), "sweep", run_dir.name)
    texts = [each.text for each in info.texts]
    choices = list(zip(words.short_texts(texts), texts, strict=True))
    switch = gr.Radio(choices, value=info.sweep.text, visible=len(texts) > 1)
    return {
        "about": about_html(info) + standing_html(record),
        "empty": message(unmeasured_html(info, record.live)),
        "lines": gr.Column(visible=bool(info.measured)),
        "text": switch,
        "chart": chart,
        "table": table_html(info),
        "chooser": gr.Row(visible=bool(info.measured)),
        "point": point,
    }


def standing_html(record: RunRecord) -> Markup:
    """The run of a sweep, and what to do if it ended early: what is measured stays."""
    ended = states.ended_html(record, log_tail(record.path))
    return render("sweep_run.html", run=record.id, stopped=record.state == "stopped", ended=ended)


def _launch(app: AppContext, model: str, stand: Standing, chosen: str | None) -> tuple[str, str]:
    """Launch the run that a point of a sweep stands for: what went wrong, or the id of the run."""
    run_dir = stand.run_dir
    try:
        points = read_sweep(run_dir).points if run_dir else ()
        point = next((each for each in points if label(each) == chosen), None)
        if run_dir is None or point is None:
            return states.error_html("Choose a point of the sweep first.", title=states.REFUSED), ""
        spec = run_of(read_spec(run_dir), point)
        own = methods.fitting(point.method, spec.prune.options)
        spec = replace(spec, prune=replace(spec.prune, options=own))
        if stand.shows_example:
            spec = replace(spec, extra={}, model=app.model_spec(model))
        return "", actions.launch(app, spec).name
    except PruneError as error:
        return states.failure_html(error), ""
