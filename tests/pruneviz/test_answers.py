from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from core.errors import LaunchError
from pruneviz import runs
from pruneviz.answers import Question, ask_both
from pruneviz.context import AppContext
from tests.pruneviz.samples import make_run


class FakeEngine:
    """Answers with the source and the prompt; dies where told to."""

    def __init__(self, dies_on: str = "") -> None:
        self.dies_on, self.asked = dies_on, []

    def generate(self, source: str, prompt: str, **options: Any) -> Iterator[dict[str, Any]]:
        self.asked.append((source, options))
        if self.dies_on and self.dies_on in source:
            raise LaunchError("The engine has died.")
        yield {"piece": f"{source}:"}
        yield {"piece": prompt}
        yield {"done": True, "tokens_per_second": 3.0}

    def stop(self) -> None:
        pass


@pytest.fixture
def app(tmp_path):
    make_run(tmp_path, "a")
    context = AppContext(tmp_path)
    context._engine = FakeEngine()
    return context


def _last(app, question):
    record = runs.find(app.runs_dir, "a")
    return list(ask_both(app, record, question))


def test_both_models_get_the_same_question(app):
    seen = _last(app, Question("Hi", seed=3, max_new_tokens=5, temperature=0.5, chat=True))
    path = str(app.runs_dir / "a")
    assert (seen[-1].dense, seen[-1].pruned, seen[-1].state) == ("demo:Hi", f"{path}:Hi", "")
    assert (seen[-1].dense_speed, seen[-1].pruned_speed) == (3.0, 3.0)
    (_, first), (_, second) = app.engine.asked
    assert (
        first == second == {"max_new_tokens": 5, "temperature": 0.5, "seed": 3, "chat": True, "removed": None}
    )


def test_pieces_are_shown_as_they_come(app):
    assert "demo:" in [answer.dense for answer in _last(app, Question("Hi"))]


def test_an_engine_that_dies_leaves_the_first_answer_and_says_so(app):
    app._engine = FakeEngine(dies_on=str(app.runs_dir))
    last = _last(app, Question("Hi"))[-1]
    assert last.dense == "demo:Hi" and "The engine has died." in last.state


def test_stop_ends_both_answers(app):
    answers = ask_both(app, runs.find(app.runs_dir, "a"), Question("Hi"))
    next(answers)
    app.stop_answers()
    seen = list(answers)
    assert seen[-1].pruned == "" or not seen
