"""An engine, a model that never ends its text by itself, and a text to measure on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from core.engine.client import Engine
from tests.conftest import llama_config, random_model


@pytest.fixture(scope="package")
def endless(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> str:
    """A model that never ends its text by itself."""
    folder = tmp_path_factory.mktemp("models") / "endless"
    model = random_model(llama_config(max_position_embeddings=1_000_000))
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"eos_token": "</s>"', '"eos_token": null'))
    return str(folder)


@pytest.fixture(scope="package")
def engine() -> Iterator[Engine]:
    """The only one that runs here, so that its process is known."""
    engine = Engine("cpu")
    yield engine
    engine.close()


@pytest.fixture(scope="package")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("texts") / "words.txt"
    path.write_text(" ".join(f"w{i * 7 % 90}" for i in range(300)))
    return str(path)
