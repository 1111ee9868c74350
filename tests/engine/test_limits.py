"""What cannot be read: a model from a hub that takes the question and never answers, and torch itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.engine.client import Engine
from core.errors import LaunchError, PruneError, StopRequested
from tests.engine.asking import PROMPT
from tests.runs.waiting import until

SOURCE = "some/model"


@pytest.fixture(autouse=True)
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", 0)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield


@pytest.fixture
def make() -> Iterator[Callable[[float], Engine]]:
    engines: list[Engine] = []

    def make(limit_s: float) -> Engine:
        engines.append(Engine("cpu", load_limit_s=limit_s))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def test_reading_has_a_time_limit_and_what_is_asked_next_is_answered(
    make: Callable[[float], Engine], endless: str
) -> None:
    engine = make(600)
    engine.card(endless)
    engine._child._limit_s = 1  # type: ignore[union-attr]
    with pytest.raises(LaunchError, match="some/model could not be read within 1 s and was given up"):
        engine.card(SOURCE)
    assert engine.card(endless)["name"] == "endless"


def test_stop_ends_an_answer_whose_model_is_being_read(make: Callable[[float], Engine]) -> None:
    engine = make(600)
    raised: list[PruneError] = []

    def ask() -> None:
        try:
            list(engine.generate(SOURCE, PROMPT))
        except PruneError as error:
            raised.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: engine._child is not None and engine._child.reading == SOURCE, seconds=240)
    engine.stop()
    asking.join(60)  # left alone, it would say after 10 s that there is no such hub
    assert [type(error) for error in raised] == [StopRequested]
    assert "Stopped while some/model was being read" in str(raised[0])
    assert engine.state() == {"started": False, "busy": False, "models": {}}


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
    raised: list[PruneError] = []

    def ask() -> None:
        try:
            engine.card(endless)
        except PruneError as error:
            raised.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: engine.state()["busy"])
    engine.stop()
    asking.join(60)
    assert [str(error) for error in raised] == ["Stopped while torch was being read."]
