"""A model larger than what a card may hold: layers rest in memory, and are lent to the card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.criteria.scoring import score_units
from core.devices.lending import spread_of
from core.graph.discover import discover
from core.models.load import load
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from tests.gpu.conftest import FAMILIES
from tests.stages.steps import done, outcome

pytestmark = pytest.mark.gpu
KINDS = ("query_head", "ffn_channel")


def little(device: str, family: str = "llama", dtype: str = "float32") -> str:
    """Room for the embedding and one of the layers of a tiny model."""
    size = 150 if family == "mixtral" else 110
    return f"{device}={size if dtype == 'float32' else size // 2}KiB"


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_a_model_on_the_card(family: str, device: str, folders: dict[str, Path]) -> None:
    folder, kinds = str(folders[family]), ("ffn_channel",) if family == "mixtral" else KINDS
    whole = load(folder, device=device, dtype="float32")
    away = load(folder, device=device, dtype="float32", device_map="auto", max_memory=little(device, family))
    spread = spread_of(away.model)
    assert spread is not None and spread.places and away.model.device == whole.model.device
    windows = torch.randint(4, 128, (4, 32), generator=torch.Generator().manual_seed(0))
    graph, criterion = discover(whole.model, name=family), "l2" if family == "mixtral" else "wifv"
    there, here = (
        score_units(model, graph, criterion, windows, kinds=kinds) for model in (whole.model, away.model)
    )
    assert all(np.allclose(here[group], values, rtol=1e-4) for group, values in there.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_refits_cuts_and_saves(
    tmp_path: Path, device: str, folders: dict[str, Path], texts: tuple[Path, Path], dtype: str
) -> None:
    spec = RunSpec(
        model=ModelSpec(str(folders["llama"]), device, dtype),
        calibration=DataSpec(str(texts[0]), samples=4, length=16),
        prune=PruneSpec("wifv", 0.3, reconstruct="least_squares"),
        evaluate=EvalSpec(str(texts[1]), 16, 128, prompts=("the a of",), max_new_tokens=4, efficiency=False),
    )
    mapped = replace(spec.model, device_map="auto", max_memory=little(device, dtype=dtype))
    plan, metrics, _ = outcome(done(tmp_path / "away", replace(spec, model=mapped)))
    expected, measured, _ = outcome(done(tmp_path / "whole", spec))
    assert plan == expected
    assert metrics["ppl_after"] == pytest.approx(measured["ppl_after"], rel=1e-3)
