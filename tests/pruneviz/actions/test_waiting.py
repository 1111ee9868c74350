from __future__ import annotations

import threading

import pytest

from pruneviz.actions.waiting import Given, ticking, ticking_items


def test_seconds_tick_until_the_result_is_there():
    go = threading.Event()
    steps = ticking(lambda: (go.wait(), 7)[1], every_s=0.01)
    assert isinstance(next(steps), float)
    go.set()
    assert list(steps)[-1] == Given(7)


def test_what_is_raised_comes_through():
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(ticking(fail))


def test_items_come_in_order():
    assert [step.value for step in ticking_items(iter("abc")) if isinstance(step, Given)] == ["a", "b", "c"]
