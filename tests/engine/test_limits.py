"""What cannot be read: a model from a hub that takes the question and never answers, and torch itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.engine.client import Engine
from core.errors import LaunchError, PruneError
from tests.engine.asking import PROMPT
from tests.runs.waiting import until

SOURCE = "some/model"


@pytest.fixture(autouse=True)
def nothing_is_answered(silent_hub: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in silent_hub.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def make() -> Iterator[Callable[[float], Engine]]:
    engines: list[Engine] = []

    def make(limit_s: float) -> Engine:
        engines.append(Engine("cpu", load_limit_s=limit_s))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module")
def own() -> Iterator[Engine]:
    """One that may be ended, whose process the next test goes on with: it takes seconds to come up."""
    engine = Engine("cpu", load_limit_s=600)
    yield engine
    engine.close()


def test_reading_has_a_time_limit_and_what_is_asked_next_is_answered(own: Engine, endless: str) -> None:
    own.card(endless)
    own._child._limit_s = 1  # type: ignore[union-attr]
    with pytest.raises(LaunchError, match="some/model could not be read within 1 s and was given up"):
        own.card(SOURCE)
    assert own.card(endless)["name"] == "endless"


def test_stop_ends_an_answer_whose_model_is_being_read(own: Engine) -> None:
    raised = asking(lambda: list(own.generate(SOURCE, PROMPT)))
    until(lambda: own._child is not None and own._child.reading == SOURCE, seconds=240)
    own.stop()
    assert raised() == "StopRequested: Stopped while some/model was being read."
    assert own.state() == {"started": False, "busy": False, "models": {}}


def asking(call: Callable[[], object]) -> Callable[[], str]:
    """Ask in a thread of its own; gives who waits for what is raised there."""
    raised: list[PruneError] = []

    def ask() -> None:
        try:
            call()
        except PruneError as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()

    def ended() -> str:
        thread.join(60)  # left alone, a read would say after 10 s that there is no such hub
        (error,) = raised
        return f"{type(error).__name__}: {error}"

    return ended


@pytest.fixture
def hanging_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A new process finds a torch that is never read to its end, as from a file system that is away."""
    (tmp_path / "torch.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    monkeypatch.undo()


def test_an_engine_that_does_not_come_up_has_the_same_limit(
    make: Callable[[float], Engine], hanging_torch: None, endless: str
) -> None:
    engine = make(2)
    with pytest.raises(LaunchError, match=r"torch could not .* within 2 s and was given up\. Try again"):
        engine.load(endless)
    assert engine.state() == {"started": False, "busy": False, "models": {}}


def test_stop_ends_an_engine_that_does_not_come_up(
    make: Callable[[float], Engine], hanging_torch: None, endless: str
) -> None:
    engine = make(600)
    raised = asking(lambda: engine.card(endless))
    until(lambda: engine.state()["busy"])
    engine.stop()
    assert raised() == "StopRequested: Stopped while torch was being read."
