"""Two cards that hold half a model each learn what two with a whole one learn, with weights at rest, too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.runs.artifacts import read_plan
from core.runs.events import EventReader
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from tests.gpu.test_lending import little
from tests.stages.steps import done
from tests.stages.test_nuteprune import curves

pytestmark = pytest.mark.gpu
LEARNS = {"steps": 4, "batch": 4, "precision": "no", "lora_rank": 2, "gap": 0.1, "interval": 0.05, "held": 2}


@pytest.mark.parametrize(
    ("family", "mapped"), [("llama", True), ("llama", False), ("gpt2", False), ("mixtral", False)]
)
def test_sharded_cards_learn_what_cards_with_a_whole_model_learn(
    tmp_path: Path, device: str, folders: dict[str, Path], texts: tuple[Path, Path], family: str, mapped: bool
) -> None:
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("this machine has one CUDA device")
    trains: dict[str, Any] = {"steps": 2, "batch": 4, "micro_batch": 2, "length": 16, "held": 4}
    spec = RunSpec(
        model=ModelSpec(str(folders[family]), device, "float32"),
        calibration=DataSpec(str(texts[0]), samples=8, length=16),
        prune=PruneSpec("nuteprune", 0.3, options={**LEARNS, "processes": 2}),
        recover=RecoverSpec("distill", str(texts[0]), precision="no", processes=2, **trains),
        evaluate=EvalSpec(str(texts[1]), 16, 128, prompts=("the a of",), max_new_tokens=4, efficiency=False),
    )
    two = replace(
        spec,
        prune=replace(spec.prune, options={**spec.prune.options, "shard_weights": "on"}),
        recover=replace(spec.recover, shard_weights="on"),
        model=replace(spec.model, device_map="auto", max_memory=little(device)) if mapped else spec.model,
    )
    whole, shared = done(tmp_path / "whole", spec), done(tmp_path / "shared", two)
    told = [event.data.get("text", "") for event in EventReader(shared / "events.jsonl").read()]
    assert sum("Weights that are not trained are sharded" in text for text in told) == 2
    assert read_plan(shared) == read_plan(whole)
    for name in ("train.kl", "recover.loss", "recover.held_ppl"):
        assert curves(shared)[name] == pytest.approx(curves(whole)[name], rel=1e-4), name
