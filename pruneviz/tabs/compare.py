"""The Compare tab: the dense and the pruned model answer the same prompt, beside their numbers.

Element ids: compare-run, compare-table, compare-state, compare-to-runs, compare-kept, compare-prompt,
compare-chat, compare-seed, compare-tokens, compare-temperature, compare-go, compare-stop, compare-dense,
compare-pruned, compare-dense-speed, compare-pruned-speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from core.errors import ArtifactError
from core.spec import EvalSpec
from pruneviz import runs, states, words
from pruneviz.answers import Answer, Question, ask_both
from pruneviz.context import AppContext
from pruneviz.figures.compare import compare_html, compare_info
from pruneviz.runs import RunRecord
from pruneviz.tabs.parts import intro, panel, quietly

INTRO = "What the cut did: the dense and the pruned model answer the same prompt, beside their numbers."
NOTHING = states.empty_html(
    "Nothing to compare yet",
    "Prune a model on the Runs tab; once that run has finished it can be chosen here.",
)
NO_SAMPLES = gr.Dropdown([], value=None, label="Answers kept by the run", interactive=False)


@dataclass(frozen=True)
class Page:
    """The components `_fill` fills, in order."""

    run: gr.Dropdown
    state: gr.HTML
    table: gr.HTML
    kept: gr.Dropdown
    prompt: gr.Textbox
    dense: gr.Textbox
    pruned: gr.Textbox
    dense_speed: gr.HTML
    pruned_speed: gr.HTML
    go: gr.Button
    to_runs: gr.Button

    def all(self) -> list[Any]:
        """All of them, in order."""
        return list(self.__dict__.values())

    def answers(self) -> list[Any]:
        """What changes while the models write."""
        return [self.state, self.dense, self.pruned, self.dense_speed, self.pruned_speed]


def build_compare_tab(app: AppContext) -> None:
    """Build the tab and wire it."""
    intro(INTRO)
    run = gr.Dropdown([], label="Pruned by run", elem_id="compare-run", filterable=False)
    state = panel("compare-state", NOTHING)
    to_runs = gr.Button("Open Runs", elem_id="compare-to-runs", variant="primary", visible=False)
    with gr.Row(equal_height=False):
        with gr.Column():
            table = panel("compare-table", min_height=330)
        with gr.Column():
            kept, prompt, options, go, stop = _build_question()
    with gr.Row(equal_height=True):
        dense, dense_speed = _build_answer("dense", "Dense model")
        pruned, pruned_speed = _build_answer("pruned", "Pruned model")
    page = Page(run, state, table, kept, prompt, dense, pruned, dense_speed, pruned_speed, go, to_runs)
    _wire(app, page, options, stop)


def _build_question() -> tuple[gr.Dropdown, gr.Textbox, list[Any], gr.Button, gr.Button]:
    kept = gr.Dropdown([], label="Answers kept by the run", elem_id="compare-kept", filterable=False)
    prompt = gr.Textbox(EvalSpec().prompts[0], label="Prompt", lines=3, elem_id="compare-prompt")
    with gr.Row():
        chat = gr.Checkbox(False, label="As a chat message", elem_id="compare-chat")
        seed = gr.Number(
            0, label="Seed", info="of the draw", precision=0, elem_id="compare-seed", min_width=90
        )
        tokens = gr.Number(
            64, label="Tokens", info="at most", precision=0, elem_id="compare-tokens", min_width=90
        )
        warmth = gr.Number(
            0, label="Temperature", info="0: the likeliest", step=0.1, minimum=0, min_width=90,
            elem_id="compare-temperature",
        )  # fmt: skip
    with gr.Row():
        go = gr.Button("Answer", variant="primary", elem_id="compare-go", scale=0)
        stop = gr.Button("Stop", elem_id="compare-stop", scale=0)
    return kept, prompt, [prompt, chat, seed, tokens, warmth], go, stop


def _build_answer(name: str, title: str) -> tuple[gr.Textbox, gr.HTML]:
    with gr.Column():
        box = gr.Textbox(
            label=title, lines=9, max_lines=18, interactive=False, elem_id=f"compare-{name}", buttons=["copy"]
        )
        speed = panel(f"compare-{name}-speed", min_height=24)
    return box, speed


def _wire(app: AppContext, page: Page, options: list[Any], stop: gr.Button) -> None:
    quiet, url = quietly(), app.url

    def fill(run: str) -> list[Any]:
        return _fill(app, run)

    def answer(run: str, *question: Any) -> Iterator[list[Any]]:
        yield from _answer(app, run, question)

    gr.on([app.tabs["compare"].select, url.run.change], fill, url.run, page.all(), **quiet)
    page.run.input(lambda run: run, page.run, url.run, **quiet)
    page.kept.input(
        lambda run, prompt: _kept(app, run, prompt),
        [page.run, page.kept],
        [page.prompt, *page.answers()[1:]],
        **quiet,
    )
    page.to_runs.click(
        None,
        None,
        None,
        js='() => document.getElementById("tab-runs-button").click()',
        api_visibility="private",
    )
    gr.on([page.go.click, page.prompt.submit], answer, [page.run, *options], page.answers(), **quiet)
    stop.click(lambda: app.stop_answers(), None, None, **quiet)


def _finished(app: AppContext) -> list[RunRecord]:
    """Pruning runs that left a model, newest first."""
    found = runs.list_runs(app.runs_dir)
    return [r for r in found if r.state == "finished" and r.spec and r.spec.goal == "prune"]


def _fill(app: AppContext, run: str) -> list[Any]:
    """The page for the run in the address, or for the newest one."""
    finished = _finished(app)
    chosen = next((r for r in finished if r.id == run), finished[0] if finished else None)
    if chosen is None:
        empty = [gr.Dropdown([], value=None), gr.HTML(NOTHING, visible=True), "", gr.Dropdown([], value=None)]
        return [*empty, gr.skip(), "", "", "", "", gr.Button(interactive=False), gr.Button(visible=True)]
    choices = [(_label(r), r.id) for r in finished]
    samples, problem = _samples(chosen)
    prompts = [str(sample["prompt"]) for sample in samples]
    first = _shown(samples[0]) if samples else [gr.skip(), "", "", "", ""]
    return [
        gr.Dropdown(choices, value=chosen.id),
        gr.HTML(problem, visible=bool(problem)),
        compare_html(compare_info(chosen.metrics)),
        gr.Dropdown(prompts, value=prompts[0] if prompts else None),
        *first,
        gr.Button(interactive=True),
        gr.Button(visible=False),
    ]


def _label(record: RunRecord) -> str:
    spec = record.spec
    assert spec is not None, "finished pruning runs have a spec"
    removed = words.percent(record.metrics.get("sparsity", spec.prune.sparsity))
    return f"{spec.name or record.id}: {spec.model.source}, {spec.prune.method}, {removed}"


def _samples(record: RunRecord) -> tuple[list[dict[str, Any]], str]:
    try:
        return runs.read_samples(record.path), ""
    except ArtifactError as error:
        return [], states.failure_html(error)


def _kept(app: AppContext, run: str, prompt: str) -> list[Any]:
    """Prompt, both answers and both speeds as the run kept them."""
    record = runs.find(app.runs_dir, run or "")
    samples = _samples(record)[0] if record else []
    found = next((sample for sample in samples if sample["prompt"] == prompt), None)
    return _shown(found) if found else [gr.skip()] * 5


def _shown(sample: dict[str, Any]) -> list[Any]:
    dense, pruned = sample["dense"], sample["pruned"]
    speeds = [_speed(one.get("tokens_per_second"), "kept by the run") for one in (dense, pruned)]
    return [sample["prompt"], dense["text"], pruned["text"], *speeds]


def _speed(tokens_per_second: float | None, note: str = "") -> str:
    if tokens_per_second is None:
        return f'<p class="pv-quiet">{note}</p>'
    text = f"{tokens_per_second:.1f} tokens/s" + (f" · {note}" if note else "")
    return f'<p class="pv-quiet">{text}</p>'


def _answer(app: AppContext, run: str, question: tuple[Any, ...]) -> Iterator[list[Any]]:
    """Stream both answers; the state says which model is being read or is writing."""
    record = runs.find(app.runs_dir, run or "")
    if record is None or record.spec is None:
        yield [gr.HTML(NOTHING, visible=True), *[gr.skip()] * 4]
        return
    for answer in ask_both(app, record, Question(*question)):
        yield _row(answer)


def _row(answer: Answer) -> list[Any]:
    return [
        gr.HTML(answer.state, visible=bool(answer.state)),
        answer.dense,
        answer.pruned,
        _speed(answer.dense_speed),
        _speed(answer.pruned_speed),
    ]
