"""A card that is too small says so in numbers, loses nothing, and is given back."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.engine.client import Engine
from core.errors import LaunchError, StopRequested
from core.runs import launch
from core.runs.events import Event
from core.runs.status import read_status
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.stages.worker import execute
from tests.stages.steps import again, outcome

pytestmark = pytest.mark.gpu


@pytest.fixture
def spec(device: str, folders: dict[str, Path], texts: tuple[Path, Path]) -> RunSpec:
    """A pruning run of a second on the device of this tier."""
    return RunSpec(
        model=ModelSpec(str(folders["llama"]), device, "float32"),
        calibration=DataSpec(str(texts[0]), samples=4, length=16),
        prune=PruneSpec("taylor_first", 0.3),
        evaluate=EvalSpec(str(texts[1]), 16, 128, prompts=("the a of",), max_new_tokens=4, efficiency=False),
    )


@pytest.mark.parametrize("stage", ["score", "plan", "evaluate"])
def test_a_stopped_run_goes_on_to_the_same_result(tmp_path: Path, spec: RunSpec, stage: str) -> None:
    whole = launch.create(tmp_path / "whole", spec, mine=True)
    execute(whole)
    cut = launch.create(tmp_path / "cut", spec, mine=True)

    def stop_there(event: Event) -> None:
        if event.type == "stage" and event.stage == stage:
            raise StopRequested("here")

    with pytest.raises(StopRequested):
        execute(cut, stop_there)
    again(cut)
    assert outcome(cut)[0] == outcome(whole)[0]


def test_a_full_card_is_told_in_numbers_and_the_run_goes_on_later(
    tmp_path: Path, spec: RunSpec, device: str
) -> None:
    if device != "cuda":
        pytest.skip("only a card has a memory of its own that can be limited")
    many = replace(spec, calibration=replace(spec.calibration, samples=64, length=128, batch=64))
    run_dir = launch.create(tmp_path, many, mine=True)
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_allocated() + 24 * 2**20) / total))
    try:
        with pytest.raises(
            LaunchError, match=r"Memory ran out \(cuda:0 has [\d.]+ GiB: .* free\); use fewer"
        ):
            execute(run_dir)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    status = read_status(run_dir)
    assert status.state == "failed" and status.error and "--samples" in status.error["message"]
    gc.collect()
    torch.cuda.empty_cache()
    again(run_dir)
    assert read_status(run_dir).state == "finished"


def test_the_engine_gives_its_memory_back(device: str, folders: dict[str, Path]) -> None:
    engine = Engine(device)
    try:
        engine.load(str(folders["llama"]))
        assert engine.state()["models"]
        loaded = torch.cuda.mem_get_info()[0] if device == "cuda" else 0
        engine.release()
        assert not engine.state()["models"]
        assert (torch.cuda.mem_get_info()[0] if device == "cuda" else 0) >= loaded
    finally:
        engine.close()
