"""The process of the page with weights that rest elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.engine.client import Engine
from core.errors import ModelError
from tests.engine.asking import PROMPT


@pytest.mark.slow
def test_a_model_whose_weights_rest_on_disk_answers_alike(tiny_llama_folder: Path, engine: Engine) -> None:
    source = str(tiny_llama_folder)
    away = Engine("cpu", device_map="auto", max_memory="cpu=64KiB")
    try:
        said = [
            [event.get("piece", "") for event in each.generate(source, PROMPT, max_new_tokens=4)]
            for each in (engine, away)
        ]
        assert said[0] == said[1] and any(said[0])
        with pytest.raises(ModelError, match=r"8 bits take the model twice; .* without --device-map"):
            list(away.generate(source, PROMPT, max_new_tokens=4, int8=True))
    finally:
        away.close()
