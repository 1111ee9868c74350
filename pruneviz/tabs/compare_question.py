"""What the Compare tab asks: the library of prompts, and what the runs answered to one already."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pruneviz.actions.answers import Answer, Round, library_choices
from pruneviz.components.answer_cards import round_payload
from pruneviz.data.contenders import Contender
from pruneviz.data.measured import kept_answer, kept_samples


def question(contenders: tuple[Contender, ...], own: str) -> dict[str, Any]:
    """The library, and what the runs answered to somebody's own prompt, which stays, or to its first."""
    prompts = _library(contenders)
    first = prompts[0][1]
    if not own.strip():
        library = gr.Dropdown(prompts, value=first)
        return {"library": library, "first": first, "taken": first, **answered(contenders, first)}
    chosen = own if own in [prompt for _, prompt in prompts] else None
    library, answers = gr.Dropdown(prompts, value=chosen), answered(contenders, own)["answers"]
    return {"library": library, "taken": chosen or "", "answers": answers}


def _library(contenders: tuple[Contender, ...]) -> list[tuple[str, str]]:
    """(label, prompt): what the runs answered already, then the library."""
    told = dict.fromkeys(sample["prompt"] for each in contenders for sample in kept_samples(each))
    first = [(f"Answered in the run: {prompt}", prompt) for prompt in told]
    return first + [choice for choice in library_choices() if choice[1] not in told]


def answered(contenders: tuple[Contender, ...], prompt: str) -> dict[str, Any]:
    """The prompt, and the answers that the runs kept for it."""
    answers = []
    for each in contenders:
        kept = kept_answer(each, prompt)
        note, speed = "kept by the run" if kept else "", kept.get("tokens_per_second")
        text = str(kept.get("text", ""))
        answers.append(Answer(each.key, each.title, each.detail, text, speed, "done", note=note))
    return {"prompt": prompt, "answers": round_payload(Round(tuple(answers), done=True))}
