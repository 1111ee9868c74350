"""What happens in a run, one JSON object per line, appended only.

A reader keeps a byte offset and asks for more; a torn last line is left for the next read, and a
damaged line in the middle is skipped and counted, so one bad byte never hides a run.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from core.errors import storage_error
from core.files import regular, sound

Level = Literal["info", "warning"]
EventType = Literal["stage", "progress", "metric", "message", "artifact", "error", "done"]
_WARNING = "Warning: "
#: So much is read at once; a line that is longer is none of ours.
_CHUNK = 16 * 2**20
#: Type of an event -> what its data must be where it is given.
_NUMBER = (int, float)
_DATA: dict[str, dict[str, type | tuple[type, ...]]] = {
    "message": {"text": str, "level": str},
    "metric": {"name": str, "step": _NUMBER, "value": _NUMBER},
    "progress": {"done": _NUMBER, "total": _NUMBER, "unit": str},
    "done": {"state": str},
}


@dataclass(frozen=True)
class Event:
    """One line of `events.jsonl`.

    Attributes:
        type: `stage` a stage begins (data: index, stages, title); `progress` (data: done, total, unit);
            `metric` a point of a curve (data: name, step, value); `message` for people (data: text, level);
            `artifact` a file is there (data: name); `error` (data: type, message, fix); `done` (data: state).
        time: seconds since the epoch.
    """

    type: str
    stage: str
    data: dict[str, Any] = field(default_factory=dict)
    time: float = 0.0

    def to_json(self) -> str:
        """The event as one line, without the line feed."""
        return json.dumps({"time": self.time, "type": self.type, "stage": self.stage, "data": self.data})


class EventWriter:
    """Appends events, unbuffered: a reader sees each at once, and a full disk is noticed at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = open(path, "ab", buffering=0, opener=regular)  # noqa: SIM115
            # A killed writer left half a line: close it off before the next one.
            self._torn = path.stat().st_size > 0 and not _ends_line(path)
        except OSError as error:
            raise storage_error(path, error) from error

    def write(self, type: EventType, stage: str, /, **data: Any) -> Event:
        """Append one event and return it. Raises StorageError; the writer stays usable."""
        event = Event(type, stage, data, time.time())
        line = (b"\n" if self._torn else b"") + event.to_json().encode() + b"\n"
        self._torn = True
        try:
            self._torn = self._file.write(line) != len(line)
        except OSError as error:
            raise storage_error(self._path, error) from error
        if self._torn:
            raise storage_error(self._path, OSError(errno.ENOSPC, "only part of the line was written"))
        return event

    def close(self) -> None:
        """Close the file; nothing is lost without it."""
        self._file.close()


@dataclass
class EventReader:
    """Reads what has been appended since the last call.

    Attributes:
        offset: bytes read so far.
        damaged: lines skipped because they are no events.
    """

    path: Path
    offset: int = 0
    damaged: int = 0

    def read(self) -> list[Event]:
        """New whole lines as events; an empty list if there is none, or no file yet."""
        try:
            with open(self.path, "rb", opener=regular) as file:
                if os.fstat(file.fileno()).st_size < self.offset:
                    self.offset = 0  # somebody emptied or replaced the file
                file.seek(self.offset)
                return list(self._lines(file))
        except OSError:  # none yet, or no file that could hold events
            return []

    def _lines(self, file: BinaryIO) -> Iterator[Event]:
        while chunk := file.read(_CHUNK):
            end = chunk.rfind(b"\n") + 1
            if not end and len(chunk) == _CHUNK:
                self.damaged, end = self.damaged + 1, _CHUNK
            self.offset += end
            yield from filter(None, map(self._parse, chunk[:end].splitlines()))
            if len(chunk) < _CHUNK:
                return
            file.seek(self.offset)

    def _parse(self, line: bytes) -> Event | None:
        if not line.strip():
            return None
        try:
            raw = sound(json.loads(line))
            data = _typed(raw["type"], dict(raw["data"]))
            return Event(str(raw["type"]), str(raw["stage"]), data, float(raw["time"]))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            self.damaged += 1
            return None


def _typed(type: str, data: dict[str, Any]) -> dict[str, Any]:
    """The data of an event of this type. Raises TypeError if a part of it is something else."""
    for name, wanted in _DATA.get(type, {}).items():
        if name in data and (not isinstance(data[name], wanted) or isinstance(data[name], bool)):
            raise TypeError(f"{name} of an event is of the wrong type")
    return _with_level(data) if type == "message" else data


def in_words(text: str, level: str) -> str:
    """A message as people read it."""
    return f"{_WARNING}{text}" if level == "warning" else text


def _with_level(data: dict[str, Any]) -> dict[str, Any]:
    """A message's data; release 0.1 wrote no level, and a warning began with the word."""
    data = {"text": "", **data}
    if "level" in data or not str(data["text"]).startswith(_WARNING):
        return {"level": "info", **data}
    return {**data, "text": data["text"].removeprefix(_WARNING), "level": "warning"}


def warnings(events: Iterable[Event]) -> list[str]:
    """What people should know before they trust the result, in words."""
    told = [event.data for event in events if event.type == "message"]
    return [in_words(str(data["text"]), "warning") for data in told if data.get("level") == "warning"]


def metric_series(events: Iterable[Event]) -> dict[str, list[tuple[float, float]]]:
    """Metric name -> [(step, value)], in the order told.

    A resumed run makes the steps after its last checkpoint again: what it says last of a step counts.
    """
    series: dict[str, dict[float, float]] = {}
    for event in events:
        if event.type == "metric" and {"name", "step", "value"} <= event.data.keys():
            points = series.setdefault(str(event.data["name"]), {})
            points[float(event.data["step"])] = float(event.data["value"])
    return {name: list(points.items()) for name, points in series.items()}


def _ends_line(path: Path) -> bool:
    with open(path, "rb", opener=regular) as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
