"""What an audience asks the models on `/present`: one prompt after the other, each of all models."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Sequence
from importlib.util import find_spec

from pydantic import BaseModel

from pruneviz.actions.answers import Question, Round, Side, ask
from pruneviz.context import AppContext
from pruneviz.figures import states

MOST_WAITING = 16
LONGEST_PROMPT = 4000
TICK_S = 0.5


class Asked(BaseModel):
    """One prompt for the models of these runs, as the page sends it."""

    run: str
    prompt: str
    blind: bool = False
    chat: bool = False


def refusal(asked: Asked) -> str:
    """Why this prompt is not asked, for people; empty if it is."""
    if not asked.prompt.strip():
        return "Type a prompt first."
    if len(asked.prompt) > LONGEST_PROMPT:
        return f"A prompt here has at most {LONGEST_PROMPT:,} characters, got {len(asked.prompt):,}: cut it."
    return ""


def unanswerable(sides: Sequence[Side]) -> str:
    """Why none of the pruned models can be asked anything here, for people; empty if one can."""
    if find_spec("torch") is None:
        return "torch is not installed where this page comes from, so no model can be read there."
    pruned = [side.refused for side in sides[1:]]
    return "" if "" in pruned else next(iter(pruned), "No pruned model is presented.")


class Floor:
    """Whose turn it is: the engine holds few models, so a prompt waits for the one before it."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._here: list[Asked] = []

    @property
    def full(self) -> bool:
        """Whether as many prompts as are let in are waiting or being answered."""
        return len(self._here) >= MOST_WAITING

    def rounds(self, app: AppContext, sides: Sequence[Side], asked: Asked) -> Generator[Round, None, None]:
        """The wait, then the answers as they grow. Whoever closes it stops the model that is writing."""
        self._here.append(asked)
        began = time.monotonic()
        try:
            while not self._turn.acquire(timeout=TICK_S):
                waited = time.monotonic() - began
                yield Round((), states.loading_html("Another prompt is being answered first", waited))
            try:
                yield from ask(app, sides, Question(asked.prompt, chat=asked.chat, blind=asked.blind))
            finally:
                self._turn.release()
        finally:
            self._here.remove(asked)
