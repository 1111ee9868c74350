"""Ask two models the same question, one after the other, through the engine: dense and pruned, or masked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.errors import PruneError
from core.selection import Units
from pruneviz import states
from pruneviz.context import AppContext
from pruneviz.runs import RunRecord
from pruneviz.waiting import Item, ticking_items


@dataclass(frozen=True)
class Question:
    """What is asked and how the answer is drawn; the fields in the order they stand on the page."""

    prompt: str
    chat: bool = False
    seed: float | None = 0
    max_new_tokens: float | None = 64
    temperature: float = 0.0


@dataclass(frozen=True)
class Answer:
    """The page while the models write. `state` is HTML; the texts are the models' own and never HTML."""

    state: str = ""
    dense: str = ""
    pruned: str = ""
    dense_speed: float | None = None
    pruned_speed: float | None = None


@dataclass(frozen=True)
class Side:
    """Who answers: the `field` of `Answer` to fill, the model, its name for people, units masked in it."""

    field: str
    source: str
    name: str
    removed: Units | None = None


def ask_both(app: AppContext, record: RunRecord, question: Question) -> Iterator[Answer]:
    """Stream the dense model's answer, then the pruned one's. Errors become the state, never an exception."""
    sides = (Side("dense", record.model, "dense"), Side("pruned", str(record.path), "pruned"))
    return ask(app, sides, question)


def ask(app: AppContext, sides: Sequence[Side], question: Question) -> Iterator[Answer]:
    """Stream one answer after the other. Errors become the state, never an exception."""
    stopped, answer = app.answers_stopped, Answer(state=states.loading_html("Starting the engine", 0.0))
    yield answer
    try:
        for number, side in enumerate(sides, 1):
            if app.answers_stopped > stopped:
                break
            for fresh in _one(app, side, question, answer, f"answer {number} of {len(sides)}"):
                answer = fresh
                yield answer
        yield replace(answer, state="")
    except PruneError as error:
        yield replace(answer, state=states.failure_html(error, "Press Answer to try again."))


def _one(app: AppContext, side: Side, question: Question, answer: Answer, progress: str) -> Iterator[Answer]:
    text = ""
    pieces = app.engine.generate(
        side.source,
        question.prompt,
        max_new_tokens=int(question.max_new_tokens or 64),
        temperature=float(question.temperature),
        seed=int(question.seed or 0),
        chat=bool(question.chat),
        removed=side.removed,
    )
    for step in ticking_items(pieces):
        if not isinstance(step, Item):
            title = f"The {side.name} model is {'writing' if text else 'being read'}"
            yield replace(answer, state=states.loading_html(title, step, progress))
            continue
        event: dict[str, Any] = step.value
        if "piece" in event:
            text += event["piece"]
            answer = replace(answer, state="", **{side.field: text})
            yield answer
        if "tokens_per_second" in event:
            answer = replace(answer, **{f"{side.field}_speed": event["tokens_per_second"]})
            yield answer
