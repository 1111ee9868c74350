"""The Compare tab: up to four models answer the same prompt, beside their numbers.

Element ids: compare-models, compare-state, compare-to-runs, compare-library, compare-prompt, compare-chat,
compare-seed, compare-tokens, compare-temperature, compare-blind, compare-go, compare-stop, compare-waiting,
compare-answers, compare-present, compare-full; the numbers' are in `compare_numbers.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from core.errors import SpecError
from core.spec.evaluate import EvalSpec
from pruneviz import scripts
from pruneviz.actions.answers import (
    LENGTH,
    SEED,
    TEMPERATURE,
    ask,
    question_of,
    sides_of,
)
from pruneviz.components.answer_cards import answer_cards, round_payload
from pruneviz.components.base import panel
from pruneviz.components.full_screen import full_screen
from pruneviz.context import AppContext, memory
from pruneviz.data.contenders import DENSE, MOST, Contender, Lineup, choices, keys_of, line_up, plain_key
from pruneviz.data.runs import RunRecord
from pruneviz.figures import states
from pruneviz.figures.render import render
from pruneviz.tabs.compare_numbers import Numbers, build_numbers, fill, flips_of
from pruneviz.tabs.compare_published import Published, build_published, shown_table
from pruneviz.tabs.compare_question import answered, question
from pruneviz.tabs.example import (
    ExampleBar,
    build_example_bar,
    example_bar,
    example_html,
    wire_yours,
)
from pruneviz.tabs.parts import LATEST, QUIET, Parts, intro, message, number_box, while_open

INTRO = "What the cut did: up to four models answer the same prompt, beside their numbers."
NOTHING = states.empty_html(
    "Nothing to compare yet",
    "Prune a model on the Runs tab; once that run has finished it can be chosen here. So can any other model "
    "that was measured: python -m core evaluate MODEL",
)
TURNS = (
    "The engine holds one dense and one pruned model at a time: these models take turns, and each answer "
    "waits until its model has been read."
)


@dataclass(frozen=True)
class Page(Parts):
    """The components `_fill` fills."""

    models: gr.Dropdown
    state: gr.HTML
    bar: ExampleBar
    to_runs: gr.Button
    box: gr.Column
    present: gr.HTML
    library: gr.Dropdown
    prompt: gr.Textbox
    chat: gr.Checkbox
    blind: gr.Checkbox
    answers: gr.HTML
    shown: gr.Textbox
    first: gr.Textbox
    taken: gr.Textbox
    numbers: Numbers


def build_compare_tab(app: AppContext) -> None:
    """Build the tab and wire it."""
    with gr.Row(elem_classes="pv-line", elem_id="compare-head"):
        intro(INTRO)
        full_screen("compare-full")
    models = gr.Dropdown(
        [], label="Models; the others are compared with the first", multiselect=True, max_choices=MOST,
        info="A model of equal size is a baseline here once it was measured: python -m core evaluate MODEL",
        elem_id="compare-models",
    )  # fmt: skip
    state = panel("compare-state")  # said once it is known
    bar = build_example_bar("compare")
    to_runs = gr.Button("Open Runs", elem_id="compare-to-runs", variant="primary", visible=False)
    with gr.Column(visible=False, elem_id="compare-box") as box:
        library, prompt, options, go, stop, present = _build_question()
        waiting = panel("compare-waiting", visible=False)
        answers = answer_cards(elem_id="compare-answers", min_height=180)
        numbers = build_numbers()
    published = build_published()
    remembered = (memory("compare-shown"), memory("compare-first"), memory("compare-taken"))
    asked_as = (prompt, options[1], options[-1])
    page = Page(models, state, bar, to_runs, box, present, library, *asked_as, answers, *remembered, numbers)
    _wire(app, page, published)
    _wire_question(app, page, options, waiting, go, stop)


def _build_question() -> tuple[gr.Dropdown, gr.Textbox, list[Any], gr.Button, gr.Button, gr.HTML]:
    with gr.Row(equal_height=True):
        with gr.Column(scale=3):
            library = gr.Dropdown([], label="Prompt library", elem_id="compare-library", filterable=True)
            prompt = gr.Textbox(EvalSpec().prompts[0], label="Prompt", lines=3, elem_id="compare-prompt")
        with gr.Column(scale=2, elem_id="compare-options"):
            with gr.Row():
                seed = number_box(0, label=SEED, info="for sampling", elem_id="compare-seed", min_width=90)
                tokens = number_box(
                    64, label=LENGTH, info="in tokens", elem_id="compare-tokens", min_width=90
                )
                warmth = number_box(
                    0, label=TEMPERATURE, info="0: no sampling", min_width=110, elem_id="compare-temperature"
                )
            with gr.Row():
                chat = gr.Checkbox(False, label="As a chat message", elem_id="compare-chat", min_width=140)
                blind = gr.Checkbox(False, label="Blind, with a vote", elem_id="compare-blind", min_width=140)
    with gr.Row(elem_classes="pv-line", elem_id="compare-asking"):
        go = gr.Button("Answer", variant="primary", elem_id="compare-go", scale=0, min_width=110)
        stop = gr.Button("Stop", elem_id="compare-stop", scale=0, min_width=110)
        present = panel("compare-present")
    return library, prompt, [prompt, chat, seed, tokens, warmth, blind], go, stop, present


def _wire(app: AppContext, page: Page, published: Published) -> None:
    url, numbers = app.url, page.numbers
    where = [url.models, url.run, url.model]

    def shown(
        models: str, run: str, model: str, before: str, prompt: str, first: str, chat: bool, blind: bool
    ) -> dict[Any, Any]:
        own = prompt if before and prompt != first else ""
        return page.filled(_fill(app, models, run, model, before, own, chat=chat, blind=blind))

    def chosen(picked: list[str], models: str, run: str, model: str) -> Any:
        shown = [contender.key for contender in _lineup(app, models, run, model)[0].contenders]
        if picked == shown or not picked:
            return gr.skip()
        return dict(zip((url.models, url.run), _address(picked), strict=True))

    def flips(models: str, run: str, model: str, chosen: str) -> Any:
        lineup, records = _lineup(app, models, run, model)
        return flips_of(lineup, records, chosen)

    def table(models: str, run: str, model: str, name: str) -> str:
        return shown_table(name, *_lineup(app, models, run, model))

    events = [app.tabs["compare"].select, while_open(app, "compare", url.run, url.models).change]
    seen = [page.shown, page.prompt, page.first, page.chat, page.blind]
    gr.on(events, shown, [*where, *seen], page.all(), **LATEST)
    gr.on([*events, published.of.input], table, [*where, published.of], published.shown, **LATEST)
    # Not `input`: Gradio leaves that out when the Backspace key takes a model away.
    page.models.change(chosen, [page.models, *where], [url.models, url.run], **QUIET)
    numbers.flips_of.input(flips, [*where, numbers.flips_of], numbers.flips, **QUIET)
    wire_yours(app, page.bar, lambda *at: _examples(_lineup(app, *at)[0].contenders), where, page.state)
    page.to_runs.click(None, None, None, js=scripts.open_tab("runs"), api_visibility="private")


def _wire_question(
    app: AppContext, page: Page, options: list[Any], waiting: gr.HTML, go: gr.Button, stop: gr.Button
) -> None:
    url = app.url
    where = [url.models, url.run, url.model]

    def answer(models: str, run: str, model: str, *options: Any) -> Iterator[dict[Any, Any]]:
        for said, answers in _answer(app, models, run, model, options):
            yield {waiting: message(said), **({page.answers: answers} if answers else {})}

    def link(models: str, run: str, model: str, chat: bool, blind: bool) -> str:
        return present_link(_lineup(app, models, run, model)[0].contenders, chat=chat, blind=blind)

    def kept(models: str, run: str, model: str, prompt: str) -> dict[Any, Any]:
        contenders = _lineup(app, models, run, model)[0].contenders
        return page.filled({"taken": prompt, **answered(contenders, prompt)})

    def entered(models: str, run: str, model: str, prompt: str | None, taken: str) -> Any:
        return gr.skip() if not prompt or prompt == taken else kept(models, run, model, prompt)

    gr.on([go.click, page.prompt.submit], answer, [*where, *options], [waiting, page.answers], **QUIET)
    chosen, taking = [*where, page.library], [page.prompt, page.answers, page.taken]
    page.library.select(kept, chosen, taking, **QUIET)
    # Gradio has no `select` for the Enter key, and an `input` for leaving the list without a choice, too.
    page.library.input(entered, [*chosen, page.taken], taking, **QUIET)
    gr.on([page.chat.input, page.blind.input], link, [*where, page.chat, page.blind], page.present, **LATEST)
    stop.click(lambda: app.stop_answers(), None, None, **QUIET)


def _address(models: list[str]) -> tuple[str, str]:
    """The chosen models for the address, and the run the other tabs show."""
    run = next((key for key in map(plain_key, models) if key != DENSE), "")
    return ",".join(models), run


def _lineup(app: AppContext, models: str, run: str, model: str) -> tuple[Lineup, list[RunRecord]]:
    records = app.records(model, run, *map(plain_key, models.split(",")))
    return line_up(records, keys_of(models, run, records), model), records


def _fill(
    app: AppContext, models: str, run: str, model: str, before: str = "", own: str = "", **asked_as: bool
) -> dict[str, Any]:
    """What `Page` shows for the models in the address.

    Several things ask for it while the page opens, and coming back to the tab does: where the same models
    are shown as `before`, what was typed and answered since stays. Other models are asked the same.

    Args:
        own: the prompt that somebody typed or chose; empty for none.
    """
    lineup, records = _lineup(app, models, run, model)
    offered, contenders = choices(records), lineup.contenders
    keys = [contender.key for contender in contenders]
    notes = _notes_html(lineup)
    left_out = states.notes_html(*app.examples.notes)
    if not contenders or not offered:  # no run has left a model yet: there is nothing beside the dense one
        return {
            "models": gr.Dropdown(offered, value=[], multiselect=True),
            "state": message((notes or NOTHING) + left_out),
            "to_runs": gr.Button(visible=not offered),
            "box": gr.Column(visible=False),
        }
    names = " ".join([model, *keys])
    return {
        "models": gr.Dropdown(offered, value=keys, multiselect=True),
        "state": message(notes),
        "to_runs": gr.Button(visible=False),
        "box": gr.Column(visible=True),
        "present": present_link(contenders, **asked_as),
        "bar": _example_bar(contenders),
        **(question(contenders, own) if names != before else {}),
        "shown": names,
        "numbers": fill(lineup, records),
    }


def _examples(contenders: tuple[Contender, ...]) -> list[RunRecord]:
    """The examples among them."""
    return [each.record for each in contenders if each.record and each.example]


def _example_bar(contenders: tuple[Contender, ...]) -> dict[str, Any]:
    """The bar for the examples among them."""
    examples = _examples(contenders)
    bar = example_bar(examples[0] if examples else None, bool(examples), own=False, live=False)
    return {**bar, "said": example_html(examples)}


def _notes_html(lineup: Lineup) -> str:
    notes = list(lineup.notes)
    asked = [contender for contender in lineup.contenders if not contender.example]
    dense = sum(contender.side == "dense" for contender in asked)
    if max(dense, len(asked) - dense) > 1:
        notes.append(TURNS)
    return states.notes_html(*notes)


def present_link(contenders: tuple[Contender, ...], *, chat: bool = False, blind: bool = False) -> str:
    """Leads to the slides of the runs among them, where models are asked as here; empty without any."""
    ids = dict.fromkeys(each.record.id for each in contenders if each.record and each.side != "dense")
    chosen = {name: "1" for name, on in (("chat", chat), ("blind", blind)) if on}
    return render("present_link.html", address={"run": ",".join(ids), **chosen}) if ids else ""


def _answer(
    app: AppContext, models: str, run: str, model: str, options: tuple[Any, ...]
) -> Iterator[tuple[str, str]]:
    """Stream all answers, each time after what is being waited for: a model that is read, or writes."""
    contenders = _lineup(app, models, run, model)[0].contenders
    if not contenders:
        yield NOTHING, ""
        return
    try:
        asked = question_of(*options)
    except SpecError as error:
        yield states.failure_html(error), ""
        return
    for answers in ask(app, sides_of(contenders), asked):
        yield answers.state, round_payload(answers, contenders[0].key)
