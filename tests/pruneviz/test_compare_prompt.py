"""What puts a prompt into the box on the Compare tab, and what leaves the one there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pruneviz.context import AppContext
from tests.pruneviz.samples import MEASURED, make_run


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory, build_page: Any) -> Callable[..., dict[str, Any]]:
    """Call the callback of this name on the Compare tab, of two runs: updates by element id."""
    app = AppContext(tmp_path_factory.mktemp("runs"))
    for name in "ab":
        make_run(app.runs_dir, name, metrics=MEASURED)
    kept = [{"prompt": "P", "dense": {"text": "D"}, "pruned": {"text": "Q"}}]
    Path(app.runs_dir / "a" / "samples.json").write_text(json.dumps(kept))
    events = build_page(app).fns.values()

    def call(name: str, *values: Any) -> dict[str, Any]:
        (event,) = (each for each in events if each.name == name and _about_the_prompt(each))
        updates = event.fn(*values)
        return {getattr(part, "elem_id", part): update for part, update in updates.items()}

    return call


def _about_the_prompt(event: Any) -> bool:
    return "compare-prompt" in [getattr(block, "elem_id", "") for block in event.outputs]


def test_a_prompt_of_ones_own_stays_when_other_models_are_chosen(
    called: Callable[..., dict[str, Any]],
) -> None:
    def filled(models: str, before: str, prompt: str, first: str) -> dict[str, Any]:
        return called("shown", models, "", "demo", before, prompt, first, False, False)

    opened = filled("dense,a", "", "The capital of France is", "")
    shown, first = opened["compare-shown"], opened["compare-first"]
    assert opened["compare-prompt"] == first == "P"
    for empty in ("P", "", " "):
        assert filled("dense,b,a", shown, empty, first)["compare-prompt"] == "P"
    own = filled("dense,b,a", shown, "My own", first)
    assert "compare-prompt" not in own and own["compare-library"].value is None
    cards = json.loads(own["compare-answers"])["cards"]
    assert [card["text"] for card in cards] == ["", "", ""], "no model was asked that yet"
    again = filled("dense,a", own["compare-shown"], "P", "another")
    assert "compare-prompt" not in again and again["compare-library"].value == "P"
    assert json.loads(again["compare-answers"])["cards"][1]["text"] == "Q"


def test_a_prompt_is_taken_from_the_library_by_the_keyboard_and_not_by_leaving_it(
    called: Callable[..., dict[str, Any]],
) -> None:
    by_mouse = called("kept", "dense,a", "", "demo", "P")
    by_keys = called("entered", "dense,a", "", "demo", "P", "another")
    assert by_keys == by_mouse and by_keys["compare-prompt"] == by_keys["compare-taken"] == "P"
    for left in ("P", None, ""):
        assert "compare-prompt" not in called("entered", "dense,a", "", "demo", left, "P")
