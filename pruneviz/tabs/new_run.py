"""The New run form of the Runs tab, with an exact preview of what it would leave.

Element ids: new-run, new-name, new-method, new-about, new-slider, new-sparsity, new-kinds, new-layers,
new-calibration, new-samples, new-length, new-text, new-seed, new-units, new-advanced,
new-scope, new-reconstruct, new-multiple, new-kind-sparsity, new-preview, new-command, new-launch,
new-discover, new-message.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from core import artifacts
from core.errors import ArtifactError, PruneError
from core.graph.records import Graph
from core.selection import MANUAL
from core.spec import RunSpec
from pruneviz import actions, methods, runs, selection, states
from pruneviz.context import AppContext
from pruneviz.figures.preview import preview_html, preview_info
from pruneviz.forms import KIND_WORDS, MULTIPLES, RECONSTRUCT_WORDS, SCOPE_WORDS, Form, form_from, spec_from
from pruneviz.runs import RunRecord
from pruneviz.tabs.parts import panel, quietly
from pruneviz.waiting import Done, ticking


@dataclass(frozen=True)
class NewRun:
    """The form.

    Attributes:
        inputs: its fields in the order of `Form`; launched: the id of what it started.
        ranking: the fields that say how units are ranked, of no use where they were chosen by hand.
        about: two sentences on the method.
    """

    box: gr.Accordion
    inputs: list[Any]
    slider: gr.Slider
    launched: gr.Textbox
    ranking: gr.Column
    about: gr.HTML

    def learn_methods(self, app: AppContext) -> None:
        """List every method once the tab opens. To be wired last: a page's events of one cause wait for
        each other, and the first time this takes the seconds that a process needs to load torch."""
        method = self.inputs[1]
        app.tabs["runs"].select(_learn_methods, method, [method, self.about], **quietly())

    @property
    def units(self) -> gr.Textbox:
        """The field for units that were chosen by hand."""
        return self.inputs[list(Form.__dataclass_fields__).index("units")]

    def fields(self) -> list[Any]:
        """What `filled_from` fills."""
        return [self.box, *self.inputs, self.slider]

    def filled_from(self, record: RunRecord | None) -> list[Any]:
        """The open form with what another run was asked to do."""
        if record is None or record.spec is None:
            return [gr.skip()] * len(self.fields())
        form = form_from(record.spec)
        return [gr.Accordion(open=True), *form.values(), record.spec.prune.sparsity]


def build_new_run(app: AppContext) -> NewRun:
    """Build the form inside an accordion and wire it."""
    start = Form()
    with gr.Accordion("New run", open=False, elem_id="new-run") as box, gr.Row(equal_height=False):
        with gr.Column(scale=3):
            inputs, slider, about, ranking = _build_fields(start)
        with gr.Column(scale=2):
            preview = panel("new-preview", min_height=320)
            command = gr.Textbox(
                label="The same run from a shell",
                lines=2,
                interactive=False,
                elem_id="new-command",
                buttons=["copy"],
            )
            message = panel("new-message", visible=False)
            with gr.Row():
                launch = gr.Button("Launch", variant="primary", elem_id="new-launch", scale=0)
                discover = gr.Button("Discover groups", elem_id="new-discover", scale=0)
    launched = gr.Textbox(visible="hidden", elem_id="new-launched", label="launched")
    form = NewRun(box, inputs, slider, launched, ranking, about)
    _wire(app, form, preview, command, message, launch, discover)
    return form


def _build_fields(start: Form) -> tuple[list[Any], gr.Slider, gr.HTML, gr.Column]:
    with gr.Row():
        method = gr.Dropdown(methods.names(), value=start.method, label="Method", elem_id="new-method")
        name = gr.Textbox(value="", label="Name, if you like", max_lines=1, elem_id="new-name")
    about = panel("new-about", min_height=42)
    units = gr.Textbox(
        start.units, label="Units that go", info="chosen on the Structure tab, or written here", lines=3,
        max_lines=8, elem_id="new-units", placeholder="L03.query_head=0-3,7 L04.ffn_channel=5", visible=False,
    )  # fmt: skip
    with gr.Column(elem_id="new-ranking") as ranking:
        slider, rest = _build_ranking(start)
    text = gr.Textbox(
        start.text,
        label="Text that measures perplexity",
        info="bundled, or a file",
        elem_id="new-text",
        max_lines=1,
    )
    advanced = _build_advanced(start)
    sparsity, kinds, layers, seed, calibration, samples, length = rest
    fields = [
        name,
        method,
        sparsity,
        kinds,
        layers,
        calibration,
        samples,
        length,
        text,
        seed,
        units,
        *advanced,
    ]
    return fields, slider, about, ranking


def _build_advanced(start: Form) -> list[Any]:
    """What most runs leave as it is, in the order of `Form`."""
    with gr.Accordion("Advanced", open=False, elem_id="new-advanced"):
        with gr.Row():
            scope = gr.Dropdown(
                list(SCOPE_WORDS), value=start.scope, label="Who gives how much", elem_id="new-scope",
                info="every layer the same share, or more where it matters less",
            )  # fmt: skip
            reconstruct = gr.Dropdown(
                list(RECONSTRUCT_WORDS), value=start.reconstruct, label="Refit what stays",
                elem_id="new-reconstruct", info="on the calibration text, without training",
            )  # fmt: skip
        with gr.Row():
            multiple = gr.Dropdown(
                list(MULTIPLES), value=start.multiple, label="Widths in multiples of", elem_id="new-multiple",
                info="round widths run faster on GPUs", allow_custom_value=True,
            )  # fmt: skip
            own = gr.Textbox(
                start.kind_sparsity, label="A target of its own for a kind", elem_id="new-kind-sparsity",
                info="in the place of the sparsity above", placeholder="ffn_channel=0.3", max_lines=1,
            )  # fmt: skip
    return [scope, reconstruct, multiple, own]


def _build_ranking(start: Form) -> tuple[gr.Slider, list[Any]]:
    with gr.Row():
        slider = gr.Slider(
            0, 0.95, 0.2, step=0.01, label="Sparsity", elem_id="new-slider", scale=3, buttons=[],
            info="Share of the parameters in the chosen blocks that goes.",
        )  # fmt: skip
        sparsity = gr.Textbox(start.sparsity, label="As a number", elem_id="new-sparsity", max_lines=1)
    kinds = gr.CheckboxGroup(
        list(KIND_WORDS), value=list(start.kinds), label="What may go", elem_id="new-kinds"
    )
    with gr.Row():
        layers = gr.Textbox(
            value="",
            label="Layers",
            placeholder="all",
            info="first:last, last not included",
            elem_id="new-layers",
            max_lines=1,
        )
        seed = gr.Number(
            start.seed, label="Seed", info="of every random choice", elem_id="new-seed", precision=0
        )
    with gr.Row():
        calibration = gr.Textbox(
            start.calibration, label="Calibration text", info="bundled, or a file", elem_id="new-calibration",
            max_lines=1,
        )  # fmt: skip
        samples = gr.Number(
            start.samples, label="Windows", info="of this text", elem_id="new-samples", precision=0
        )
        length = gr.Number(
            start.length, label="Tokens", info="in each window", elem_id="new-length", precision=0
        )
    return slider, [sparsity, kinds, layers, seed, calibration, samples, length]


def _wire(
    app: AppContext,
    form: NewRun,
    preview: gr.HTML,
    command: gr.Textbox,
    message: gr.HTML,
    launch: gr.Button,
    discover: gr.Button,
) -> None:
    quiet = quietly()
    asked, method, sparsity = [app.url.model, *form.inputs], form.inputs[1], form.inputs[2]
    seen = [preview, command, launch]

    def show(model: str, *values: Any) -> list[Any]:
        return _preview(app, model, values)

    def start(model: str, *values: Any) -> list[Any]:
        return _launch(app, lambda: spec_from(app.model_spec(model), *values))

    def find_groups(model: str) -> list[Any]:
        return _launch(app, lambda: actions.explore_spec(app, model, ("groups",)))

    form.slider.input(None, form.slider, sparsity, js="(v) => String(v)", api_visibility="private")
    sparsity.change(None, sparsity, form.slider, js=_TO_SLIDER, api_visibility="private")
    triggers = [field.change for field in form.inputs]
    gr.on(
        [app.tabs["runs"].select, app.url.model.change, form.launched.change, *triggers],
        show, asked, seen, trigger_mode="always_last", **quiet,
    )  # fmt: skip
    method.change(_about, method, form.about, **quiet)
    method.change(_by_hand, method, [form.units, form.ranking], **quiet)
    app.url.plan.change(_handed_over, app.url.plan, [form.box, method, form.units, app.url.go], **quiet)
    launch.click(start, asked, [message, form.launched], **quiet)
    discover.click(find_groups, app.url.model, [message, form.launched], **quiet)


#: A number in range moves the slider; anything else leaves it where it is.
_TO_SLIDER = """(text) => {
  const value = Number(String(text).replace(",", "."));
  const good = String(text).trim() !== "" && value >= 0 && value < 1;
  return good ? Math.min(value, 0.95) : {__type__: "update"};
}"""


def _preview(app: AppContext, model: str, values: tuple[Any, ...]) -> list[Any]:
    """Preview, command and whether Launch makes sense."""
    try:
        spec = spec_from(app.model_spec(model), *values)
        info = preview_info(spec, _graph(app, model), _scores(app, model, spec.prune.method))
    except PruneError as error:
        return [
            states.error_html(str(error), title="This cannot be launched yet"),
            "",
            gr.Button(interactive=False),
        ]
    return [preview_html(info), info.command, gr.Button(interactive=not info.problem)]


def _graph(app: AppContext, model: str) -> Graph | None:
    run = runs.latest(app.runs_dir, model, artifacts.GROUPS)
    return runs.graph_of(run) if run else None


def _scores(app: AppContext, model: str, method: str) -> Any:
    """Kept scores of this method, or None: damaged ones count as none, a run makes its own anyway."""
    run = runs.latest(app.runs_dir, model, artifacts.SCORES)
    try:
        return artifacts.read_scores(run).get(method) if run else None
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
        return '<p class="pv-quiet">&nbsp;</p>'
    source = ", ".join(filter(None, [method.paper, method.equation]))
    where = f" <span>({escape(source)})</span>" if source else ""
    return f'<p class="pv-quiet">{escape(method.summary)}{where}</p>'


def _by_hand(method: str) -> list[Any]:
    """The units, or what ranks them."""
    return [gr.Textbox(visible=method == MANUAL), gr.Column(visible=method != MANUAL)]


def _handed_over(plan: str) -> list[Any]:
    """Open the form with units from another tab."""
    return [gr.Accordion(open=True), MANUAL, selection.handed_over(plan), f"runs {time.time()}"]


def _learn_methods(chosen: str) -> Iterator[list[Any]]:
    """All methods, once per dashboard; until they are there the form works with the usual ones."""
    try:
        for step in ticking(methods.all_methods):
            if isinstance(step, Done):
                yield [gr.Dropdown(methods.names(), value=chosen), _about(chosen)]
    except PruneError as error:
        yield [gr.skip(), f'<p class="pv-note">{escape(str(error))}</p>']
