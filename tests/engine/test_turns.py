"""Several callers take turns, and what is at work can be stopped."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from core.engine.client import Engine
from core.errors import StopRequested
from tests.engine.asking import PROMPT
from tests.runs.waiting import until


def test_a_text_is_stopped_in_the_middle(engine: Engine, endless: str) -> None:
    events = engine.generate(endless, PROMPT, max_new_tokens=100_000)
    pieces = [next(events), next(events)]
    assert engine.state()["busy"]
    engine.stop()
    *more, done = events
    assert done["stopped"] and 2 <= done["tokens"] < 100_000
    assert all("piece" in event for event in pieces + more)
    assert not engine.state()["busy"]


def test_who_stops_reading_stops_the_model(engine: Engine, endless: str) -> None:
    events = engine.generate(endless, PROMPT, max_new_tokens=1_000_000)
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert engine.load(endless)["name"] == "endless", "the engine is still busy"


def test_a_measurement_is_stopped(engine: Engine, tiny_llama_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("the of to and " * 200_000)
    failed: list[BaseException] = []
    engine.perplexity(str(tiny_llama_folder), str(path), window=200, tokens=200)  # the model is there then

    def ask() -> None:
        try:
            engine.perplexity(str(tiny_llama_folder), str(path), window=200, tokens=800_000)
        except StopRequested as error:
            failed.append(error)

    caller = threading.Thread(target=ask)
    caller.start()
    until(lambda: engine.state()["busy"])
    engine.stop()
    caller.join(60)
    assert failed and "Stopped after" in str(failed[0])


def test_two_callers_are_served_one_after_the_other(engine: Engine, endless: str, text: str) -> None:
    answers: dict[int, list[dict[str, Any]]] = {}

    def ask(number: int) -> None:
        answers[number] = list(
            engine.generate(endless, PROMPT, max_new_tokens=30, temperature=1.0, seed=number)
        )

    callers = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for caller in callers:
        caller.start()
    assert engine.perplexity(endless, text, window=20, tokens=100)["ppl"] > 1
    for caller in callers:
        caller.join(60)
    texts = ["".join(event.get("piece", "") for event in answers[number]) for number in range(3)]
    assert [answers[number][-1]["tokens"] for number in range(3)] == [30, 30, 30]
    assert len(set(texts)) == 3
    again = engine.generate(endless, PROMPT, max_new_tokens=30, temperature=1.0, seed=1)
    assert "".join(event.get("piece", "") for event in again) == texts[1]


def test_one_thread_may_read_two_texts_in_turns(engine: Engine, endless: str) -> None:
    first, second = (engine.generate(endless, PROMPT, max_new_tokens=5) for _ in range(2))
    assert list(zip(first, second, strict=True))[-1][0]["done"]
