"""Ask several models the same question, one after the other, through the engine: pruned, or masked."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from core.errors import PruneError, SpecError
from core.runs.artifacts import MODEL
from core.spec.fields import OPTIONS
from core.spec.units import Units
from pruneviz.actions.forms import typed
from pruneviz.actions.waiting import Given, ticking_items
from pruneviz.context import AppContext
from pruneviz.data.contenders import Contender
from pruneviz.figures import states

NO_WEIGHTS = (
    "The example came without its weights, so it cannot answer: make it yours, or take one of the prompts "
    "answered in the run."
)


@dataclass(frozen=True)
class Question:
    """What is asked and how the answer is drawn; the fields in the order they stand on the page."""

    prompt: str
    chat: bool = False
    seed: int = 0
    max_new_tokens: int = 64
    temperature: float = 0.0
    blind: bool = False

    def settings(self) -> dict[str, Any]:
        """What `Engine.generate` takes beside the prompt; the same for every model."""
        return {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "chat": self.chat,
        }


#: Labels of the boxes of Compare, in messages, too.
SEED, LENGTH, TEMPERATURE = "Seed", "Length", "Temperature"


def question_of(prompt: str, chat: bool, seed: str, length: str, temperature: str, blind: bool) -> Question:
    """The question that the boxes of Compare hold. Raises SpecError, naming the box."""
    seeded = typed(replace(OPTIONS["seed"], called=SEED), seed)
    tokens = typed(replace(OPTIONS["evaluate.max_new_tokens"], called=LENGTH), length)
    return Question(prompt or "", bool(chat), seeded, tokens, _warmth(temperature), bool(blind))


def _warmth(given: str) -> float:
    text = str(given or "").strip()
    with suppress(ValueError):
        if 0 <= (warmth := float(text.replace(",", "."))) < math.inf:
            return warmth
    raise SpecError(
        f"{TEMPERATURE} must be a number from 0 up, got {text or 'nothing'}; 0 takes the likeliest token."
    )


@dataclass(frozen=True)
class Side:
    """Who answers: a key of its own, its name for people, what the engine reads, units masked in it.

    Attributes:
        int8: whether its weights are put in 8 bits.
        adapter: merged into its weights when it is read.
        refused: why it cannot be asked, for people; empty if it can.
    """

    key: str
    title: str
    source: str
    detail: str = ""
    removed: Units | None = None
    int8: bool = False
    adapter: str = ""
    refused: str = ""


@dataclass(frozen=True)
class Answer:
    """One model's answer so far. `text` and `error` are never HTML.

    Attributes:
        state: `waiting`, `writing`, `done` or `failed`.
        note: how the answer came about, e.g. that a run kept it.
    """

    key: str
    title: str
    detail: str
    text: str = ""
    tokens_per_second: float | None = None
    state: str = "waiting"
    error: str = ""
    note: str = ""


@dataclass(frozen=True)
class Round:
    """All answers to one question. `state` is HTML: what is being waited for.

    In a blind round the answers are in a drawn order, and texts come only once all are there: who writes
    first, or faster, would give a model away.
    """

    answers: tuple[Answer, ...]
    state: str = ""
    blind: bool = False
    done: bool = False


def sides_of(contenders: Sequence[Contender]) -> list[Side]:
    """Those who are asked for these models, and who of them cannot answer, and why."""
    return [
        Side(
            each.key, each.title, each.source, each.detail, int8=each.int8, adapter=each.adapter,
            refused=_refusal(each),
        )
        for each in contenders
    ]  # fmt: skip


def _refusal(contender: Contender) -> str:
    record = contender.record
    if contender.example:
        return NO_WEIGHTS
    if contender.side == "dense" or record is None or (record.path / MODEL).is_dir():
        return ""
    return f"The weights of run {record.id} are no longer in its folder, so it cannot answer: run it again."


def ask(app: AppContext, sides: Sequence[Side], question: Question) -> Iterator[Round]:
    """Stream the answers. What goes wrong with one model becomes its answer; the others are still asked."""
    stopped = app.answers_stopped
    asked = random.sample(list(sides), len(sides)) if question.blind else list(sides)
    answers = [Answer(one.key, one.title, one.detail) for one in asked]
    yield Round(tuple(answers), states.loading_html("Starting the engine", 0.0), question.blind)
    for place, side in enumerate(asked):
        if app.answers_stopped > stopped:
            break
        began = time.monotonic()
        for answer in _one(app, side, question, answers[place]):
            answers[place] = answer
            state = _state(place, answers, question, time.monotonic() - began)
            yield Round(_shown(answers, question), state, question.blind)
    yield Round(tuple(answers), "", question.blind, done=True)


def _one(app: AppContext, side: Side, question: Question, answer: Answer) -> Iterator[Answer]:
    """The answer as it grows, and again whenever its next piece takes its time."""
    if side.refused:
        yield replace(answer, state="failed", error=side.refused)
        return
    try:
        pieces = app.engine.generate(
            side.source,
            question.prompt,
            removed=side.removed,
            int8=side.int8,
            adapter=side.adapter,
            **question.settings(),
        )
        for step in ticking_items(pieces):
            if not isinstance(step, Given):
                yield answer
                continue
            event: dict[str, Any] = step.value
            if "piece" in event:
                answer = replace(answer, state="writing", text=answer.text + event["piece"])
            if "tokens_per_second" in event:
                answer = replace(answer, state="done", tokens_per_second=event["tokens_per_second"])
            yield answer
    except PruneError as error:
        yield replace(answer, state="failed", error=str(error))


def _shown(answers: list[Answer], question: Question) -> tuple[Answer, ...]:
    """What may be seen before all is done."""
    if not question.blind:
        return tuple(answers)
    return tuple(replace(one, text="", state="waiting", tokens_per_second=None, error="") for one in answers)


def _state(place: int, answers: list[Answer], question: Question, seconds: float) -> str:
    answer, turn = answers[place], f"answer {place + 1} of {len(answers)}"
    if question.blind:
        return states.loading_html("The models are asked", seconds, f"{turn}, shown when all are there")
    doing = "being read" if answer.state == "waiting" else "writing"
    return states.loading_html(f"{answer.title} is {doing}", seconds, turn)


#: Heading -> prompts. Plain texts are completed; questions suit models with a chat template.
LIBRARY: dict[str, tuple[str, ...]] = {
    "Facts": (
        "The capital of Australia is",
        "Water boils at sea level at a temperature of",
        "Who wrote the play Romeo and Juliet?",
    ),
    "Reasoning": (
        "Anna has three apples and buys two more. She gives one away. How many does she have?",
        "If all cats are animals and Tom is a cat, then Tom is",
        "Which is heavier, a kilogram of feathers or a kilogram of iron? Explain.",
    ),
    "Instructions": (
        "List three ways to save electricity at home.",
        "Write one polite sentence that declines an invitation to dinner.",
        "Summarise in one sentence: The meeting was moved from Monday to Thursday as two of us are ill.",
    ),
    "Fluency": (
        "The old lighthouse keeper climbed the stairs and",
        "In economics, inflation means that",
        "Dear customer, thank you for",
    ),
    "Code": ("def fibonacci(n):", "Write a SQL query that counts the rows of a table called users."),
}


def library_choices() -> list[tuple[str, str]]:
    """(label, prompt) of all of them, by heading."""
    return [(f"{heading}: {prompt}", prompt) for heading, prompts in LIBRARY.items() for prompt in prompts]
