"""Try chosen units as a mask: an answer and a short perplexity, dense against masked, nothing cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from core.errors import PruneError, StopRequested
from core.results import words
from core.results.noise import perplexity_difference
from core.results.perplexity import Perplexity
from core.spec.units import Units
from pruneviz.actions.answers import Answer, Question, Side, ask
from pruneviz.actions.waiting import Given, ticking
from pruneviz.context import AppContext
from pruneviz.figures import states
from pruneviz.figures.render import render

WINDOW, TOKENS = 256, 1024
#: Takes its line, so that nothing moves once a difference is known.
NOTHING = "\N{NO-BREAK SPACE}"
STOPPED = states.notes_html("Stopped; what was there by then is kept.")


@dataclass(frozen=True)
class Trial:
    """The page while the engine works. `state` is HTML; the answers are the models' own text.

    Attributes:
        answers: of the dense and the masked model.
        measured: "dense" and "masked" -> what `Engine.perplexity` returned, as far as it has.
    """

    state: str = ""
    answers: tuple[Answer, ...] = ()
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)

    def texts(self) -> tuple[str, str]:
        """What both wrote so far."""
        dense, masked = self.answers or (None, None)
        return dense.text if dense else "", masked.text if masked else ""


def try_mask(app: AppContext, model: str, units: Units, prompt: str, tokens: int) -> Iterator[Trial]:
    """Answer, then measure; errors and a stop become the state, never an exception."""
    stopped, trial = app.answers_stopped, Trial()
    sides = (
        Side("dense", "The dense model", model),
        Side("masked", "The masked model", model, removed=units),
    )
    for round_ in ask(app, sides, Question(prompt, max_new_tokens=tokens)):
        trial = replace(trial, state=round_.state, answers=round_.answers)
        yield trial
    failed = next((one.error for one in trial.answers if one.error), "")
    if failed:
        yield replace(trial, state=states.error_html(failed, "Try again."))
        return
    if app.answers_stopped > stopped:
        yield replace(trial, state=trial.state or STOPPED)
        return
    try:
        for number, (name, removed) in enumerate((("dense", None), ("masked", units)), 1):
            for step in ticking(lambda removed=removed: _perplexity(app, model, removed)):
                if isinstance(step, Given):
                    trial = replace(trial, measured={**trial.measured, name: step.value})
                else:
                    title = f"Measuring the {name} model, {TOKENS:,} tokens"
                    wait = states.loading_html(title, step, f"perplexity {number} of 2")
                    yield replace(trial, state=wait)
        yield replace(trial, state="")
    except StopRequested:
        yield replace(trial, state=STOPPED)
    except PruneError as error:
        yield replace(trial, state=states.failure_html(error, "Try again."))


def _perplexity(app: AppContext, model: str, removed: Units | None) -> dict[str, Any]:
    return app.engine.perplexity(model, window=WINDOW, tokens=TOKENS, removed=removed)


def measured_html(measured: dict[str, dict[str, Any]]) -> Markup:
    """Both perplexities with their difference and what they were measured on."""
    dense, masked = (measured.get(name, {}) for name in ("dense", "masked"))
    sides = (("dense", dense, NOTHING), ("masked", masked, _change(dense, masked)))
    cells = [
        (f"Perplexity, {name}", words.perplexity(side.get("ppl"), side.get("stderr")), below)
        for name, side, below in sides
    ]
    on = (
        words.read_on(dense["text"], window=dense["window"], tokens=dense["tokens"])
        if dense
        else f"{TOKENS:,} tokens of the bundled text, in windows of {WINDOW}"
    )
    return render("trial.html", cells=cells, on=on)


def _change(dense: dict[str, Any], masked: dict[str, Any]) -> str:
    """The difference, and whether it may be chance; nothing until both are measured."""
    if not dense or not masked:
        return NOTHING
    fields = Perplexity.__dataclass_fields__
    sides = [Perplexity(**{name: side[name] for name in fields if name in side}) for side in (dense, masked)]
    return words.change(dense["ppl"], masked["ppl"], perplexity_difference(*sides))
