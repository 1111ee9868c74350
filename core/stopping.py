"""Stopping a training between two steps, whoever asks for it. Nothing here needs torch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from core.files import write_text
from core.runs.artifacts import STOP


@contextmanager
def signals_wait(run_dir: Path) -> Iterator[None]:
    """A first SIGINT or SIGTERM asks the run to stop after its step; a second one interrupts as before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        for one, handler in before.items():
            signal.signal(one, handler)
        write_text(run_dir / STOP, "")

    try:
        for number in before:
            signal.signal(number, ask)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
