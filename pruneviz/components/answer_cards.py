"""The models' answers side by side, drawn in the browser: their words only ever become text nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import gradio as gr

from pruneviz.actions.answers import Answer, Round
from pruneviz.components.base import canvas, payload
from pruneviz.figures.task_scores import word_difference


def answer_cards(**options: Any) -> gr.HTML:
    """Shows what `round_payload` returns. Votes of blind rounds are kept by the browser alone."""
    return canvas("answer_cards", **options)


def round_payload(answered: Round, reference: str = "") -> str:
    """The round for the browser.

    Args:
        reference: key of the answer that differences are marked against; the first one's if empty.
    """
    cards = [
        {**asdict(answer), "stretches": stretches}
        for answer, stretches in zip(answered.answers, marked(answered, reference), strict=True)
    ]
    first = _reference(answered.answers, reference)
    against = first.title if first else ""
    return payload({"blind": answered.blind, "done": answered.done, "cards": cards, "against": against})


def marked(answered: Round, reference: str = "") -> list[list[tuple[str, bool]]]:
    """Each answer in stretches; marked once all are done, and never against one that failed."""
    first = _reference(answered.answers, reference)
    if not answered.done or first is None or not first.text:
        return [[(answer.text, False)] for answer in answered.answers]
    return [
        [(answer.text, False)] if answer is first else word_difference(first.text, answer.text)
        for answer in answered.answers
    ]


def _reference(answers: Sequence[Answer], key: str) -> Answer | None:
    return next(
        (answer for answer in answers if answer.key == key), answers[0] if answers and not key else None
    )
