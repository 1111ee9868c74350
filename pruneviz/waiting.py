"""Call something slow from a generator and show how long it has been going on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Done(Generic[T]):
    """What the call returned."""

    value: T


def ticking(call: Callable[..., T], *arguments: Any, every_s: float = 0.5) -> Iterator[float | Done[T]]:
    """Yield the seconds gone by while `call` runs, then `Done` with its result. Raises what it raises."""
    began = time.monotonic()
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        future = pool.submit(call, *arguments)
        while wait([future], timeout=every_s).not_done:
            yield time.monotonic() - began
        yield Done(future.result())
    finally:
        pool.shutdown(wait=False)
