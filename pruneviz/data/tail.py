"""What many pages ask of one run again and again, read and drawn once for all of them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from core.runs.artifacts import EVENTS
from core.runs.events import Event, EventReader

T = TypeVar("T")
#: Runs and drawings that are kept; the one not asked for longest goes.
MOST = 64
#: What is drawn of a run that goes on is drawn this often at most, however many pages show it.
EVERY_S = 1.5


@dataclass
class _Tail:
    """The events of one file; `events` is replaced by a longer list, never changed."""

    reader: EventReader
    events: list[Event] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> list[Event]:
        with self.lock:
            offset = self.reader.offset
            more = self.reader.read()
            again = self.reader.offset < offset
            if more or again:
                self.events = more if again else [*self.events, *more]
            return self.events


@dataclass
class _Drawn:
    """What was drawn last, from what and when."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    told: Hashable = None
    at: float = 0.0
    value: Any = None


class _Kept(OrderedDict[Any, Any]):
    """Key -> what is kept of it; made where it is missing. May be used by several threads."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def of(self, key: Any, make: Callable[[], T]) -> T:
        with self.lock:
            value: T = self[key] if key in self else make()
            self[key] = value
            self.move_to_end(key)
            if len(self) > MOST:
                self.popitem(last=False)
            return value


_tails, _drawings = _Kept(), _Kept()


def read_events(run_dir: Path) -> list[Event]:
    """All events so far, for reading only; of a file that was read before, only what is new is read."""
    path = run_dir / EVENTS
    if not path.exists():
        return []
    tail: _Tail = _tails.of((path, path.stat().st_ino), lambda: _Tail(EventReader(path)))
    return tail.read()


def drawn(run_dir: Path, name: str, told: Hashable, live: bool, draw: Callable[[], T]) -> T:
    """What `draw` makes of a run's files, made anew where they changed.

    Args:
        run_dir: the run, or the folder of those that it is drawn from.
        name: which drawing, and all else that it depends on.
        told: changes with what it is drawn from: how many events there are, or `runs.changed` of a file.
        live: whether the run goes on; its drawing is then at most `EVERY_S` old, not always the newest.
    """
    kept: _Drawn = _drawings.of((run_dir, name), _Drawn)
    with kept.lock:
        recent = live and time.monotonic() - kept.at < EVERY_S
        if kept.told != told and not (kept.told is not None and recent):
            kept.value = draw()
            kept.told, kept.at = told, time.monotonic()
        value: T = kept.value
        return value
