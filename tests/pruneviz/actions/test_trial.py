"""A mask tried on a stand-in for the engine; the browser test tries one for real."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from core.errors import LaunchError, StopRequested
from pruneviz.actions.trial import STOPPED, measured_html, try_mask
from pruneviz.context import AppContext

UNITS = {"L00.query_head": (1,)}


class Engine:
    """Writes whether it was masked, and knows two perplexities; breaks where told to."""

    def __init__(self, breaks: Exception | None = None) -> None:
        self.breaks = breaks

    def generate(self, source: str, prompt: str, *, removed: Any, **_: Any) -> Iterator[dict[str, Any]]:
        yield {"piece": f"{prompt} {removed}"}
        yield {"done": True, "tokens_per_second": 3.0}

    def perplexity(self, source: str, *, removed: Any, window: int, tokens: int) -> dict[str, Any]:
        if removed and self.breaks:
            raise self.breaks
        ppl = 30.0 if removed else 20.0
        losses = [math.log(ppl) + way for way in (-0.1, 0.1, -0.1, 0.1)]
        found = {"ppl": ppl, "nll": math.log(ppl), "tokens": tokens, "window": window, "ids": "a"}
        return {**found, "losses": losses, "stderr": 0.04 * ppl, "text": "a text"}

    def stop(self) -> None:
        pass


@pytest.fixture
def app(tmp_path):
    context = AppContext(tmp_path)
    context._engine = Engine()  # type: ignore[assignment]
    return context


def test_dense_and_masked_answer_and_are_measured(app):
    last = list(try_mask(app, "demo", UNITS, "Hi", 8))[-1]
    assert last.texts() == ("Hi None", f"Hi {UNITS}")
    assert [last.measured[name]["ppl"] for name in ("dense", "masked")] == [20.0, 30.0] and last.state == ""
    page = measured_html(last.measured)
    assert "20.0 ± 0.8" in page and "+50.0 %" in page and "noise" not in page
    near = {"dense": last.measured["dense"], "masked": {**last.measured["masked"], "nll": math.log(20.01)}}
    assert "noise" not in measured_html(near), "every window moved alike, which is no chance"
    near["masked"]["losses"] = [math.log(20.01) + way for way in (0.1, -0.1, 0.1, -0.1)]
    assert "within noise" in measured_html(near)
    assert "a text, 4 windows of 256 tokens, 1,020 scored, Workbench&#39;s protocol" in page


def test_a_stop_keeps_what_is_there(app):
    trials = try_mask(app, "demo", UNITS, "Hi", 8)
    next(trials)
    app.stop_answers()
    last = list(trials)[-1]
    assert last.state == STOPPED and not last.measured
    app._engine = Engine(StopRequested("Stopped after 1 of 4 windows."))
    last = list(try_mask(app, "demo", UNITS, "Hi", 8))[-1]
    assert last.state == STOPPED and set(last.measured) == {"dense"} and last.texts()[1]


def test_an_engine_that_dies_is_said_and_the_answers_stay(app):
    app._engine = Engine(LaunchError("The engine has died."))
    last = list(try_mask(app, "demo", UNITS, "Hi", 8))[-1]
    assert "The engine has died." in last.state and last.texts()[0]
