"""Two texts, a pruning run that takes a second, and what it gives when nothing disturbs it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from core.spec import DataSpec, EvalSpec, ExploreSpec, ModelSpec, PruneSpec, RunSpec
from tests.conftest import WORDS
from tests.pipeline.steps import done, outcome


@pytest.fixture(scope="package")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two texts of words that the tiny tokenizer knows."""
    folder, draw = tmp_path_factory.mktemp("texts"), random.Random(0)
    vocabulary = WORDS.split()
    paths = [folder / "calibration.txt", folder / "evaluation.txt"]
    for path in paths:
        path.write_text(" ".join(draw.choices(vocabulary, k=2000)))
    return paths


@pytest.fixture(scope="package")
def spec(tiny_llama_folder: Path, words: list[Path]) -> RunSpec:
    """A pruning run that takes a second."""
    return RunSpec(
        model=ModelSpec(str(tiny_llama_folder), "cpu"),
        calibration=DataSpec(str(words[0]), samples=4, length=16),
        explore=ExploreSpec(sensitivity_tokens=64),
        prune=PruneSpec("taylor_first", 0.3),
        evaluate=EvalSpec(str(words[1]), 16, 128, ("the a of",), 4, efficiency=False),
    )


@pytest.fixture(scope="package")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, spec: RunSpec) -> tuple[Any, Any, Any]:
    return outcome(done(tmp_path_factory.mktemp("whole"), spec))
