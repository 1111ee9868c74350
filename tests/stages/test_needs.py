"""What a training needs is checked before the dense model is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import DataError, SpecError
from core.nuteprune.memory import free_bytes, needed_bytes
from core.runs import launch
from core.runs.events import EventReader
from core.runs.status import read_status
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from core.stages import needs
from core.stages.worker import execute
from tests.handmade import ids
from tests.nuteprune.small import settings, trainer


@pytest.fixture
def spec(tiny_llama_folder: Path, texts: tuple[Path, Path]) -> RunSpec:
    """A training run of a second."""
    options = {"steps": 2, "batch": 8, "held": 2, "precision": "no", "lora_rank": 2, "gap": 0.1}
    return RunSpec(
        model=ModelSpec(str(tiny_llama_folder), "cpu"),
        calibration=DataSpec(str(texts[0]), samples=8, length=16),
        prune=PruneSpec("nuteprune", sparsity=0.3, options=options),
        evaluate=EvalSpec(str(texts[1]), window=16, tokens=64, prompts=(), efficiency=False),
    )


def refused(folder: Path, spec: RunSpec, error: type[Exception], says: str) -> None:
    run_dir = launch.create(folder, spec, mine=True)
    with pytest.raises(error, match=says):
        execute(run_dir)
    assert read_status(run_dir).stage in ("load", "graph")
    names = [event.data.get("name") for event in EventReader(run_dir / "events.jsonl").read()]
    assert not any(str(name).startswith("ppl") for name in names)  # the dense model was not measured


def test_too_few_tokens_are_counted_with_the_windows_kept_apart(tmp_path: Path, spec: RunSpec) -> None:
    many = replace(spec, calibration=replace(spec.calibration, samples=100_000))
    refused(tmp_path, many, DataError, r"has [\d,]+ tokens, but 100002 windows of 16 need [\d,]+")


def test_too_few_sequences_for_what_trains_afterwards_are_counted(tmp_path: Path, spec: RunSpec) -> None:
    rows = tmp_path / "few.jsonl"
    row = {"instruction": "the word", "input": "", "output": "a word"}
    rows.write_text("".join(json.dumps(row) + "\n" for _ in range(4)))
    tuned = replace(spec, recover=RecoverSpec("lora", str(rows), length=256))
    refused(tmp_path / "runs", tuned, DataError, "4 sequences of 256 tokens, .* at least 10 are needed")


def test_too_little_memory_says_what_would_fit(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = spec.prune.options["batch"]
    estimate: dict[int, int] = {}

    def free(device: torch.device) -> int:
        return (estimate[whole] + estimate[whole // 2]) // 2

    def needed(model: Any, graph: Any, asked: Any, length: int) -> int:
        windows = asked.batch // asked.accumulate
        for count in (whole, whole // 2):
            estimate[count] = needed_bytes(model, graph, replace(asked, accumulate=whole // count), length)
        return estimate[windows]

    monkeypatch.setattr(needs, "needed_bytes", needed)
    monkeypatch.setattr(needs, "free_bytes", free)
    refused(
        tmp_path, spec, SpecError,
        r"needs about [\d.]+ GiB beside the model, and [\d.]+ GiB are free on cpu. .*--set accumulate=2",
    )  # fmt: skip
    monkeypatch.setattr(needs, "needed_bytes", needed_bytes)
    monkeypatch.setattr(needs, "free_bytes", lambda device: 1)
    refused(tmp_path / "none", spec, SpecError, "A single window does not fit")


def test_the_estimate_is_near_what_a_step_keeps(tmp_path: Path) -> None:
    """Everything that autograd keeps for the backward pass of a step, and is no parameter, counted once."""
    loop = trainer(tmp_path, batch=4, lora_rank=2, layer_weight=0.1)
    training, kept = loop.training, dict[int, int]()
    model = training.twin.model
    parameters = {value.untyped_storage().data_ptr() for value in model.parameters()}

    def note(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    alive = []  # a storage that is given back could be counted twice, or not at all
    training.begin(0, [0, 1, 2, 3])
    with torch.autograd.graph.saved_tensors_hooks(
        lambda value: alive.append(value) or note(value), lambda v: v
    ):
        training.loss([0, 1, 2, 3])
    fresh = trainer(tmp_path / "fresh", lora_rank=0).training
    asked = settings(batch=4, lora_rank=0, layer_weight=0.1)
    estimate = needed_bytes(fresh.twin.model, fresh.masks.graph, asked, ids(model).shape[1])
    assert 0.5 < estimate / sum(kept.values()) < 2.0


def test_the_machine_says_what_is_free() -> None:
    assert free_bytes(torch.device("cpu")) > 2**20
