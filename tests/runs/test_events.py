"""Events: appended line by line, read on from an offset, torn and damaged lines never hide the rest."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from core.errors import StorageError
from core.runs.events import Event, EventReader, EventWriter, metric_series, warnings

#: A time that no float holds.
HUGE = b'{"type": "done", "stage": "load", "data": {}, "time": 1' + b"0" * 400 + b"}"


def write(path: Path, *names: str) -> None:
    writer = EventWriter(path)
    for name in names:
        writer.write("message", "load", text=name)
    writer.close()


def texts(reader: EventReader) -> list[str]:
    return [event.data["text"] for event in reader.read()]


def test_a_reader_sees_only_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert reader.read() == []
    write(path, "a", "b")
    assert texts(reader) == ["a", "b"]
    assert texts(reader) == []
    write(path, "c")
    assert texts(reader) == ["c"]


def test_a_torn_last_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, "a", "b")
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    reader = EventReader(path)
    assert texts(reader) == ["a"]
    path.write_bytes(whole)
    assert texts(reader) == ["b"]
    assert reader.damaged == 0


def test_a_writer_after_a_kill_closes_the_torn_line_off(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, "a", "b")
    path.write_bytes(path.read_bytes()[:-10])
    write(path, "c")
    reader = EventReader(path)
    assert texts(reader) == ["a", "c"]
    assert reader.damaged == 1


@pytest.mark.parametrize(
    "line", [b"garbage", b"\xff\xfe\x00", b"[]", b"{}", b'{"type": 1}', b"[" * 5000, HUGE]
)
def test_a_damaged_line_is_skipped_and_counted(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "events.jsonl"
    write(path, "a")
    path.write_bytes(path.read_bytes() + line + b"\n")
    write(path, "b")
    reader = EventReader(path)
    assert texts(reader) == ["a", "b"]
    assert reader.damaged == 1


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, "a", "b")
    reader = EventReader(path)
    reader.read()
    path.unlink()
    write(path, "c")
    assert texts(reader) == ["c"]


class FullDisk:
    """A file that takes `room` bytes and then none."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.file.write(data[: self.room])
        self.room -= taken
        return int(taken)


def test_a_full_disk_is_said_and_nothing_after_it_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    writer.write("message", "load", text="a")
    real = writer._file
    writer._file = FullDisk(real, 5)  # type: ignore[assignment]
    for _ in range(2):
        with pytest.raises(StorageError, match="free some space"):
            writer.write("message", "load", text="lost")
    writer._file = real
    writer.write("message", "load", text="b")
    writer.close()
    reader = EventReader(path)
    assert texts(reader) == ["a", "b"]
    assert reader.damaged == 1


def test_a_warning_is_told_by_its_level_and_in_runs_of_the_past_by_its_first_word(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    writer.write("message", "load", text="Warning: same text")
    writer.write("message", "load", text="Warning: is only a word here", level="info")
    writer.write("message", "load", text="low", level="warning")
    writer.write("message", "load", text="hello")
    writer.close()
    events = EventReader(path).read()
    assert [event.data["level"] for event in events] == ["warning", "info", "warning", "info"]
    assert events[0].data["text"] == "same text"
    assert warnings(events) == ["Warning: same text", "Warning: low"]


def test_a_step_that_was_made_again_counts_once() -> None:
    points = [("loss", 0, 2.0), ("loss", 1, 1.5), ("lr", 1, 0.1), ("loss", 2, 1.0), ("loss", 1, 1.4)]
    events = [Event("metric", "recover", {"name": n, "step": s, "value": v}) for n, s, v in points]
    events.append(Event("message", "recover", {"text": "hello"}))
    assert metric_series(events) == {"loss": [(0.0, 2.0), (1.0, 1.4), (2.0, 1.0)], "lr": [(1.0, 0.1)]}
