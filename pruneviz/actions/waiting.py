"""Wait for something slow from a generator, and show how long it has been going on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Given(Generic[T]):
    """What was waited for: what a call returned, or the next item of an iterator."""

    value: T


def ticking(call: Callable[..., T], *arguments: Any, every_s: float = 0.5) -> Iterator[float | Given[T]]:
    """Yield the seconds gone by while `call` runs, then its result. Raises what it raises."""

    def once() -> Iterator[T]:
        yield call(*arguments)

    yield from ticking_items(once(), every_s=every_s)


def ticking_items(items: Iterator[T], *, every_s: float = 0.5) -> Iterator[float | Given[T]]:
    """Yield what `items` gives as it comes, and the seconds gone by whenever it takes its time.

    Whoever stops reading ends `items` too, at its next item. Raises what `items` raises.
    """
    arrived: queue.Queue[Given[T] | BaseException | None] = queue.Queue()

    left = threading.Event()

    def read() -> None:
        try:
            for item in items:
                arrived.put(Given(item))
                if left.is_set():
                    break
            if isinstance(items, Generator):
                items.close()
            arrived.put(None)
        except BaseException as error:  # handed over: the waiting side raises it
            arrived.put(error)

    began = time.monotonic()
    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            try:
                got = arrived.get(timeout=every_s)
            except queue.Empty:
                yield time.monotonic() - began
                continue
            if got is None:
                return
            if isinstance(got, BaseException):
                raise got
            yield got
    finally:
        left.set()
