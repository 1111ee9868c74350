"""What the Model tab says of a model, and what it leaves to whoever is typing when it is opened again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pruneviz.context import AppContext
from pruneviz.tabs import model


def test_what_is_being_typed_stays_when_the_tab_is_opened_or_a_run_ends(tmp_path: Path) -> None:
    app = AppContext(tmp_path / "runs")
    opened, ended = model._reopened(app, "demo"), model._tick(app, "demo")
    assert "source" not in opened and {"here", "card", "parts", "analyses"} <= opened.keys()
    assert not {"source", "here"} & ended.keys() and {"card", "parts", "analyses"} <= ended.keys()
    assert model._describe(app, "demo")["source"] == "demo", "of another address the box tells"


class Engine:
    """Tells what a config describes, and was asked for it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def state(self) -> dict[str, Any]:
        return {"models": {}}

    def card(self, source: str) -> dict[str, Any]:
        self.asked.append(source)
        return {"name": "m", "params": 10**9}


def test_a_config_alone_is_counted_by_the_engine_once(tmp_path: Path) -> None:
    app, engine, folder = AppContext(tmp_path / "runs"), Engine(), tmp_path / "m"
    app._engine = engine  # type: ignore[assignment]
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 2}')
    shown = str(model._describe(app, str(folder))["card"])
    assert "No weights are here" in shown and "GiB in float32" not in shown
    (said, reading, card) = list(model._counted(app, str(folder)))[-1]
    assert (said, reading, engine.asked) == ("", False, [str(folder)])
    assert "<dd>1 B</dd>" in card and "3.73 GiB in float32" in card and "No weights are here" in card
    assert list(model._counted(app, str(folder))) == [] and model._describe(app, str(folder))["card"] == card
    save_file({"a": np.zeros(3, np.float32)}, folder / "model.safetensors")
    assert "No weights are here" not in model._describe(app, str(folder))["card"], "they came since"


def test_a_folder_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    described = model._describe(AppContext(tmp_path / "runs"), str(tmp_path / "gone"))
    assert "There is no folder or file" in described["state"].value
    assert model.NOWHERE in described["card"] and model.UNCOUNTED in described["parts"]
