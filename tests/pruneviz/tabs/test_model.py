"""What the Model tab fills in when it is opened again, and what it leaves to whoever is typing."""

from __future__ import annotations

from pathlib import Path

from pruneviz.context import AppContext
from pruneviz.tabs import model


def test_what_is_being_typed_stays_when_the_tab_is_opened_or_a_run_ends(tmp_path: Path) -> None:
    app = AppContext(tmp_path / "runs")
    opened, ended = model._reopened(app, "demo"), model._tick(app, "demo")
    assert "source" not in opened and {"here", "card", "parts", "analyses"} <= opened.keys()
    assert not {"source", "here"} & ended.keys() and {"card", "parts", "analyses"} <= ended.keys()
    assert model._describe(app, "demo")["source"] == "demo", "of another address the box tells"
