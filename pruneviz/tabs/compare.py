"""The Compare tab: up to four models answer the same prompt, beside their numbers.

Element ids: compare-models, compare-state, compare-to-runs, compare-library, compare-prompt, compare-chat,
compare-seed, compare-tokens, compare-temperature, compare-blind, compare-go, compare-stop, compare-waiting,
compare-answers, compare-present; the numbers' are in `compare_numbers.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from core.spec.evaluate import EvalSpec
from pruneviz.actions.answers import Answer, Question, Round, Side, ask, library_choices
from pruneviz.components.answer_cards import answer_cards, round_payload
from pruneviz.components.base import panel
from pruneviz.context import AppContext, memory
from pruneviz.data import runs
from pruneviz.data.contenders import DENSE, MOST, Contender, Lineup, choices, keys_of, line_up, plain_key
from pruneviz.data.measured import kept_answer, kept_samples
from pruneviz.data.runs import RunRecord
from pruneviz.figures import states
from pruneviz.figures.render import render
from pruneviz.tabs.compare_numbers import Numbers, build_numbers, build_published, fill, flips_of
from pruneviz.tabs.parts import intro, quietly, while_open

INTRO = "What the cut did: up to four models answer the same prompt, beside their numbers."
NOTHING = states.empty_html(
    "Nothing to compare yet",
    "Prune a model on the Runs tab; once that run has finished it can be chosen here.",
)
TURNS = (
    "The engine holds one dense and one pruned model at a time: these models take turns, and each answer "
    "waits until its model has been read."
)


@dataclass(frozen=True)
class Page:
    """The components `_fill` fills, in order, before those of `Numbers`."""

    models: gr.Dropdown
    state: gr.HTML
    to_runs: gr.Button
    box: gr.Column
    present: gr.HTML
    library: gr.Dropdown
    prompt: gr.Textbox
    answers: gr.HTML
    shown: gr.Textbox

    def all(self) -> list[Any]:
        """All of them, in order."""
        return list(self.__dict__.values())


def build_compare_tab(app: AppContext) -> None:
    """Build the tab and wire it."""
    intro(INTRO)
    models = gr.Dropdown(
        [], label="Models, the first one is the reference", multiselect=True, max_choices=MOST,
        elem_id="compare-models",
    )  # fmt: skip
    state = panel("compare-state", NOTHING)
    to_runs = gr.Button("Open Runs", elem_id="compare-to-runs", variant="primary", visible=False)
    with gr.Column(visible=False, elem_id="compare-box") as box:
        library, prompt, options, go, stop, present = _build_question()
        waiting = panel("compare-waiting", visible=False)
        answers = answer_cards(elem_id="compare-answers", min_height=180)
        figures = build_numbers()
    build_published()
    shown = memory("compare-shown")
    page = Page(models, state, to_runs, box, present, library, prompt, answers, shown)
    _wire(app, page, figures)
    _wire_question(app, page, options, waiting, go, stop)


def _build_question() -> tuple[gr.Dropdown, gr.Textbox, list[Any], gr.Button, gr.Button, gr.HTML]:
    with gr.Row(equal_height=True):
        with gr.Column(scale=3):
            library = gr.Dropdown([], label="Prompt library", elem_id="compare-library", filterable=True)
            prompt = gr.Textbox(EvalSpec().prompts[0], label="Prompt", lines=3, elem_id="compare-prompt")
        with gr.Column(scale=2, elem_id="compare-options"):
            with gr.Row():
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
                chat = gr.Checkbox(False, label="As a chat message", elem_id="compare-chat", min_width=140)
                blind = gr.Checkbox(False, label="Blind, then vote", elem_id="compare-blind", min_width=140)
    with gr.Row(elem_classes="pv-line"):
        go = gr.Button("Answer", variant="primary", elem_id="compare-go", scale=0)
        stop = gr.Button("Stop", elem_id="compare-stop", scale=0)
        present = panel("compare-present")
    return library, prompt, [prompt, chat, seed, tokens, warmth, blind], go, stop, present


def _wire(app: AppContext, page: Page, figures: Numbers) -> None:
    quiet, url = quietly(), app.url
    where = [url.models, url.run, url.model]

    def shown(models: str, run: str, model: str, before: str) -> list[Any]:
        return _fill(app, models, run, model, before)

    def chosen(picked: list[str], models: str, run: str, model: str) -> list[Any]:
        shown = [one.key for one in _lineup(app, models, run, model)[0].contenders]
        return [gr.skip(), gr.skip()] if picked == shown or not picked else _address(picked)

    def flips(models: str, run: str, model: str, chosen: str) -> Any:
        lineup, records = _lineup(app, models, run, model)
        return flips_of(lineup, records, chosen)

    events = [app.tabs["compare"].select, while_open(app, "compare", url.run, url.models).change]
    gr.on(events, shown, [*where, page.shown], [*page.all(), *figures.all()], **quiet)
    # Not `input`: Gradio leaves that out when the Backspace key takes a model away.
    page.models.change(chosen, [page.models, *where], [url.models, url.run], **quiet)
    figures.flips_of.input(flips, [*where, figures.flips_of], figures.flips, **quiet)
    page.to_runs.click(
        None, None, None, js='() => document.getElementById("tab-runs-button").click()',
        api_visibility="private",
    )  # fmt: skip


def _wire_question(
    app: AppContext, page: Page, options: list[Any], waiting: gr.HTML, go: gr.Button, stop: gr.Button
) -> None:
    quiet, url = quietly(), app.url
    where = [url.models, url.run, url.model]

    def answer(models: str, run: str, model: str, *question: Any) -> Iterator[list[Any]]:
        yield from _answer(app, models, run, model, question)

    def kept(models: str, run: str, model: str, prompt: str) -> list[Any]:
        return _kept(_lineup(app, models, run, model)[0].contenders, prompt)

    gr.on([go.click, page.prompt.submit], answer, [*where, *options], [waiting, page.answers], **quiet)
    page.library.select(kept, [*where, page.library], [page.prompt, page.answers], **quiet)
    stop.click(lambda: app.stop_answers(), None, None, **quiet)


def _address(models: list[str]) -> list[str]:
    """The chosen models for the address, and the run the other tabs show."""
    return [",".join(models), next((key for key in map(plain_key, models) if key != DENSE), "")]


def _lineup(app: AppContext, models: str, run: str, model: str) -> tuple[Lineup, list[RunRecord]]:
    records = runs.list_runs(app.runs_dir)
    return line_up(records, keys_of(models, run, records), model), records


def _fill(app: AppContext, models: str, run: str, model: str, before: str | None = "") -> list[Any]:
    """The page for the models in the address.

    Several things ask for it while the page opens, and coming back to the tab does: where the same models
    are shown as `before`, what was typed and answered since stays.
    """
    lineup, records = _lineup(app, models, run, model)
    offered, contenders = choices(records), lineup.contenders
    if not contenders or not offered:  # no run has left a model yet: there is nothing beside the dense one
        gone = _notes_html(lineup)
        skipped = [gr.skip()] * (len(Page.__dataclass_fields__) - 4 + len(Numbers.__dataclass_fields__))
        state = gr.HTML(gone or NOTHING, visible=True)
        picker = gr.Dropdown(offered, value=[], multiselect=True)
        return [picker, state, gr.Button(visible=not offered), gr.Column(visible=False), *skipped]
    prompts = _library(contenders)
    notes = _notes_html(lineup)
    names = " ".join([model, *(one.key for one in contenders)])
    question = [gr.Dropdown(prompts, value=prompts[0][1]), *_kept(contenders, prompts[0][1])]
    return [
        gr.Dropdown(offered, value=[one.key for one in contenders], multiselect=True),
        gr.HTML(notes, visible=bool(notes)),
        gr.Button(visible=False),
        gr.Column(visible=True),
        present_link(contenders),
        *(question if names != before else [gr.skip()] * len(question)),
        names,
        *fill(lineup, records),
    ]


def _notes_html(lineup: Lineup) -> str:
    notes = list(lineup.notes)
    dense = sum(one.side == "dense" for one in lineup.contenders)
    if max(dense, len(lineup.contenders) - dense) > 1:
        notes.append(TURNS)
    return states.notes_html(*notes)


def present_link(contenders: tuple[Contender, ...]) -> str:
    """Leads to the slides of the runs among them; empty without any."""
    ids = dict.fromkeys(each.record.id for each in contenders if each.record and each.side != "dense")
    return render("present_link.html", runs=list(ids)) if ids else ""


def _library(contenders: tuple[Contender, ...]) -> list[tuple[str, str]]:
    """(label, prompt): what the runs answered already, then the library."""
    kept = dict.fromkeys(str(one["prompt"]) for each in contenders for one in kept_samples(each))
    known = [(f"Answered in the run: {prompt}", prompt) for prompt in kept]
    return known + [choice for choice in library_choices() if choice[1] not in kept]


def _kept(contenders: tuple[Contender, ...], prompt: str) -> list[Any]:
    """The prompt, and the answers that the runs kept for it."""
    answers = []
    for one in contenders:
        found = kept_answer(one, prompt)
        note, speed = "kept by the run" if found else "", found.get("tokens_per_second")
        text = str(found.get("text", ""))
        answers.append(Answer(one.key, one.title, one.detail, text, speed, "done", note=note))
    return [prompt, round_payload(Round(tuple(answers), done=True))]


def _answer(
    app: AppContext, models: str, run: str, model: str, question: tuple[Any, ...]
) -> Iterator[list[Any]]:
    """Stream all answers; the state says which model is being read or is writing."""
    contenders = _lineup(app, models, run, model)[0].contenders
    if not contenders:
        yield [gr.HTML(NOTHING, visible=True), gr.skip()]
        return
    sides = [Side(one.key, one.title, one.source, one.detail, int8=one.int8) for one in contenders]
    for found in ask(app, sides, Question(*question)):
        state = gr.HTML(found.state, visible=bool(found.state))
        yield [state, round_payload(found, contenders[0].key)]
