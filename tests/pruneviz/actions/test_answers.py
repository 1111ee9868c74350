from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from core.errors import InputError, LaunchError, PruneError, SpecError
from pruneviz.actions.answers import Question, Side, ask, question_of
from pruneviz.components.answer_cards import marked
from pruneviz.context import AppContext

MODELS = [Side(name, name.title(), f"/models/{name}") for name in ("one", "two", "three")]


class FakeEngine:
    """Answers with the source and the prompt; fails where told to."""

    def __init__(self, fails: dict[str, PruneError] | None = None) -> None:
        self.fails = fails or {}
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    def generate(self, source: str, prompt: str, **options: Any) -> Iterator[dict[str, Any]]:
        self.asked.append((source, prompt, options))
        if source in self.fails:
            raise self.fails[source]
        yield {"piece": f"{source}:"}
        yield {"piece": prompt}
        yield {"done": True, "tokens_per_second": 3.0}

    def stop(self) -> None:
        pass


@pytest.fixture
def app(tmp_path):
    context = AppContext(tmp_path)
    context._engine = FakeEngine()  # type: ignore[assignment]
    return context


@pytest.mark.parametrize(
    ("at", "typed", "said"),
    [
        (2, "", "Seed must be a whole number from 0 up, got nothing"),
        (3, "many", "Length must be a whole number from 1 up, got many"),
        (3, "0", "Length must be a whole number from 1 up, got 0"),
        (4, "hot", "Temperature must be a number from 0 up, got hot"),
        (4, "-1", "Temperature must be a number from 0 up, got -1"),
        (4, "inf", "Temperature must be a number from 0 up, got inf"),
    ],
)
def test_what_the_boxes_hold_is_read_or_refused_by_their_labels(at: int, typed: str, said: str) -> None:
    boxes: list[Any] = ["Hi", False, "3", "5", "0,5", True]
    assert question_of(*boxes) == Question("Hi", False, 3, 5, 0.5, True)
    with pytest.raises(SpecError, match=said):
        question_of(*[*boxes[:at], typed, *boxes[at + 1 :]])


def test_a_model_in_8_bits_is_asked_so(app):
    list(ask(app, [MODELS[0], replace(MODELS[1], int8=True)], Question("Hi")))
    assert [options["int8"] for *_, options in app.engine.asked] == [False, True]


def test_all_models_get_the_same_question(app):
    last = list(ask(app, MODELS, Question("Hi", True, 3, 5, 0.5)))[-1]
    assert [one.text for one in last.answers] == [f"/models/{m.key}:Hi" for m in MODELS]
    assert [one.tokens_per_second for one in last.answers] == [3.0] * 3 and last.done and not last.state
    settings = {
        "max_new_tokens": 5,
        "temperature": 0.5,
        "seed": 3,
        "chat": True,
        "removed": None,
        "int8": False,
        "adapter": "",
    }
    assert [asked[1:] for asked in app.engine.asked] == [("Hi", settings)] * 3


def test_pieces_are_shown_as_they_come(app):
    texts = [found.answers[0].text for found in ask(app, MODELS, Question("Hi"))]
    assert texts.index("/models/one:") < texts.index("/models/one:Hi")


@pytest.mark.parametrize(
    "error", [InputError("The prompt has 999 tokens"), LaunchError("The engine has died.")]
)
def test_what_goes_wrong_with_one_model_leaves_the_others(app, error):
    app._engine = FakeEngine({"/models/two": error})
    one, two, three = list(ask(app, MODELS, Question("Hi")))[-1].answers
    assert (two.state, two.error) == ("failed", str(error))
    assert one.text and three.text


def test_stop_ends_all_answers(app):
    answers = ask(app, MODELS, Question("Hi"))
    next(answers)
    app.stop_answers()
    assert not any(one.text for found in answers for one in found.answers)


def test_a_blind_round_shows_nothing_until_all_are_there_in_a_drawn_order(app):
    orders = set()
    for _ in range(40):
        rounds = list(ask(app, MODELS, Question("Hi", blind=True)))
        assert all(found.blind for found in rounds)
        for found in rounds[:-1]:
            assert not any(one.text or one.tokens_per_second for one in found.answers)
            assert not any(model.title in found.state for model in MODELS)
        assert all(one.text for one in rounds[-1].answers)
        orders.add(tuple(one.key for one in rounds[-1].answers))
    assert len(orders) > 2


def test_differences_are_marked_against_the_reference_once_all_are_done(app):
    rounds = list(ask(app, MODELS, Question("Hi")))
    assert not any(differs for texts in marked(rounds[-2], "one") for _, differs in texts)
    assert marked(rounds[-1], "one")[1] == [("/models/two:Hi", True)]
    assert marked(rounds[-1], "two")[1] == [("/models/two:Hi", False)]


def test_nothing_is_marked_against_an_answer_that_failed(app):
    app._engine = FakeEngine({"/models/one": InputError("no")})
    last = list(ask(app, MODELS, Question("Hi")))[-1]
    assert not any(differs for texts in marked(last, "one") for _, differs in texts)
