"""A pruning run that takes a second, and what it gives when nothing disturbs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.explore import ExploreSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from tests.stages.steps import done, outcome


@pytest.fixture(scope="package")
def spec(tiny_llama_folder: Path, texts: tuple[Path, Path]) -> RunSpec:
    """A pruning run that takes a second."""
    return RunSpec(
        model=ModelSpec(str(tiny_llama_folder), "cpu"),
        calibration=DataSpec(str(texts[0]), samples=4, length=16),
        explore=ExploreSpec(sensitivity_tokens=64),
        prune=PruneSpec("taylor_first", 0.3),
        evaluate=EvalSpec(str(texts[1]), 16, 128, ("the a of",), 4, efficiency=False),
    )


@pytest.fixture(scope="package")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, spec: RunSpec) -> tuple[Any, Any, Any]:
    return outcome(done(tmp_path_factory.mktemp("whole"), spec))
