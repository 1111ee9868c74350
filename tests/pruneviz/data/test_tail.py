from __future__ import annotations

import json
import threading

from core.runs.artifacts import EVENTS
from pruneviz.data import tail
from pruneviz.data.tail import drawn, read_events


def line(step):
    data = {"name": "loss", "step": step, "value": 1.0}
    return json.dumps({"time": 1.0, "type": "metric", "stage": "train", "data": data}) + "\n"


def steps(run_dir):
    return [event.data["step"] for event in read_events(run_dir)]


def test_only_what_is_new_is_read(tmp_path, monkeypatch):
    assert read_events(tmp_path) == []
    path = tmp_path / EVENTS
    path.write_text(line(1) + line(2))
    first = read_events(tmp_path)
    parsed, real = [], json.loads
    monkeypatch.setattr("core.runs.events.json.loads", lambda text: parsed.append(text) or real(text))
    assert read_events(tmp_path) is first and parsed == []
    with path.open("a") as file:
        file.write(line(3) + line(4)[:9])
    assert steps(tmp_path) == [1, 2, 3] and len(parsed) == 1 and len(first) == 2
    with path.open("a") as file:
        file.write(line(4)[9:])
    assert steps(tmp_path) == [1, 2, 3, 4]


def test_a_file_that_was_emptied_or_replaced_is_begun_anew(tmp_path):
    path = tmp_path / EVENTS
    path.write_text(line(1) + line(2))
    assert steps(tmp_path) == [1, 2]
    path.write_text(line(7))
    assert steps(tmp_path) == [7]
    other = tmp_path / "other"
    other.write_text(line(5) + line(6) + line(8))
    other.replace(path)
    assert steps(tmp_path) == [5, 6, 8]


def test_a_drawing_is_made_once_for_all_pages(tmp_path, monkeypatch):
    now, made = [100.0], []
    monkeypatch.setattr("pruneviz.data.tail.time.monotonic", lambda: now[0])

    def ask(told, live):
        return drawn(tmp_path, "curves", told, live, lambda: made.append(told) or told)

    assert [ask(3, True), ask(3, True), ask(4, True)] == [3, 3, 3], "not more often than pages poll"
    now[0] += tail.EVERY_S
    assert ask(5, True) == 5 and made == [3, 5]
    assert ask(6, False) == 6, "the last one is always the newest"
    assert ask(6, False) == 6 and made == [3, 5, 6]


def test_pages_that_ask_at_once_wait_for_one_drawing(tmp_path):
    made, begun, go = [], threading.Event(), threading.Event()

    def draw():
        begun.set()
        go.wait(20)
        made.append(1)
        return "figure"

    found = []
    pages = [
        threading.Thread(target=lambda: found.append(drawn(tmp_path, "x", 1, True, draw))) for _ in range(5)
    ]
    for page in pages:
        page.start()
    assert begun.wait(20)
    go.set()
    for page in pages:
        page.join()
    assert found == ["figure"] * 5 and made == [1]


def test_what_was_not_asked_for_longest_goes(tmp_path):
    made = []
    for number in [*range(tail.MOST), 0, tail.MOST, 0, 1]:
        drawn(tmp_path, f"kept {number}", 1, False, lambda number=number: made.append(number))
    assert made == [*range(tail.MOST), tail.MOST, 1]
