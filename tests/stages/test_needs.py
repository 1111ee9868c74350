"""What a training needs is checked before the dense model is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from core.devices.memory import free_memory
from core.devices.picked import multiplied_in
from core.errors import DataError, NotPrunableError, SpecError
from core.graph.records import Graph, Parameter
from core.memory.shapes import Shapes, shapes_of
from core.memory.training import Taken, freed_bytes, needed_bytes, ways
from core.methods import FITTED
from core.runs import company, launch
from core.runs.artifacts import read_spec
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
from tests.nuteprune.small import trainer


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


def test_a_training_is_fitted_into_memory_or_refused(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a batch at a time is as much as fits; later nothing does."""

    def needed(shapes: Shapes, taken: Taken, itemsize: int) -> int:
        return taken.tokens * (1 if taken.recompute else 2)

    whole = spec.prune.options["batch"] * spec.calibration.length
    monkeypatch.setattr(needs, "needed_bytes", needed)
    monkeypatch.setattr(needs, "free_memory", lambda device: whole)
    run_dir = launch.create(tmp_path, spec, mine=True)
    execute(run_dir)
    log = (run_dir / "log.txt").read_text()
    assert "layers computed again on the way back; whole batches would take" in log
    assert read_spec(run_dir).extra[FITTED] == {
        "nuteprune": {
            "accumulate": 1,
            "gradient_checkpointing": "on",
            "precision": "no",
            "processes": 1,
        }
    }
    monkeypatch.setattr(needs, "free_memory", lambda device: 1)
    refused(
        tmp_path / "none", spec, SpecError,
        r"needs about [\d.]+ GiB beside the model, and [\d.]+ GiB are free on cpu, and [\d.]+ GiB in any way",
    )  # fmt: skip


def test_the_quickest_way_comes_first_and_what_is_asked_for_before_it() -> None:
    assert [(way.parts, way.recompute) for way in ways(4, 1, 512, "auto")] == [
        (1, False), (2, False), (1, True), (4, False), (2, True), (4, True)
    ]  # fmt: skip
    assert [(way.parts, way.recompute) for way in ways(4, 2, 16, "auto")] == [
        (2, False), (2, True), (4, False), (4, True)
    ]  # fmt: skip
    assert all(way.recompute for way in ways(4, 1, 512, "on"))
    assert not any(way.recompute for way in ways(4, 1, 512, "off"))


def test_weights_are_sharded_where_nothing_else_helps_or_where_that_is_asked_for() -> None:
    every = ways(2, 1, 512, "auto", "auto", processes=4)
    assert [way.shards for way in every] == [1, 1, 1, 1, 4, 4, 4, 4]
    assert every[4].words == "whole batches, frozen weights sharded over 4"
    assert {way.shards for way in ways(2, 1, 512, "auto", "on", processes=4)} == {4}
    assert {way.shards for way in ways(2, 1, 512, "auto", "off", processes=4)} == {1}
    assert {way.shards for way in ways(2, 1, 512, "auto", "on", processes=1)} == {1}  # a resumed run


def test_a_training_that_does_not_fit_is_sharded_and_says_so(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "needed_bytes", lambda shapes, taken, itemsize: 100)
    monkeypatch.setattr(needs, "free_memory", lambda device: 40)
    monkeypatch.setattr(needs, "freed_bytes", lambda shapes, shards, itemsize, held: 70 if shards == 2 else 0)
    monkeypatch.setattr(company, "size", lambda: 2)
    run_dir, told = launch.create(tmp_path, spec, mine=True), list[str]()
    work: Any = SimpleNamespace(
        run_dir=run_dir, spec=spec, recorder=SimpleNamespace(message=told.append, artifact=lambda name: None)
    )
    loaded: Any = SimpleNamespace(
        device=torch.device("cpu"), model=nn.Module(), tokenizer=None, dtype=torch.float32
    )
    needs.check_needs(work, loaded, Graph("tiny", "llama", False, 0.0, {}, (), (), ()))
    assert read_spec(run_dir).extra[FITTED]["nuteprune"]["shard_weights"] == "on"
    assert needs.fitted_settings(run_dir).shard_weights == "on"
    assert "frozen weights sharded over 2, which frees 0.0 GiB" in told[0]
    assert told[0].endswith("; whole batches would take 0.0 GiB")


def test_what_sharding_frees_is_all_but_a_share_and_what_is_gathered() -> None:
    layer = Parameter((10, 10), 1.0, "Linear", 0)
    inside = {f"layers.{number}.weight": replace(layer, layer=number) for number in range(8)}
    parameters = {**inside, "outside.weight": replace(layer, layer=None)}
    names = tuple(f"layers.{number}" for number in range(8))
    shapes = shapes_of(Graph("tiny", "llama", False, 0.0, parameters, (), (), names))
    assert freed_bytes(shapes, 4, 4) == 4 * (900 - 225 - 100 - 200)
    assert freed_bytes(shapes, 1, 4) == 0
    few = shapes_of(
        Graph("tiny", "llama", False, 0.0, {"outside.weight": replace(layer, layer=None)}, (), (), ())
    )
    assert freed_bytes(few, 64, 4) < 0  # what is outside of layers is gathered as a whole
    assert freed_bytes(shapes, 4, 4, held=400) == 400 - 4 * (225 + 100 + 200)  # the rest rested elsewhere


def test_a_recovery_is_fitted_too_and_a_resumed_one_goes_on_alike(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def needed(shapes: Shapes, taken: Taken, itemsize: int) -> int:
        return taken.tokens + 1000 * taken.recompute

    recipe = RecoverSpec("lora", spec.calibration.name, length=16, batch=4, micro_batch=4, steps=1, held=2)
    prune = PruneSpec("l2", sparsity=0.3)
    run_dir = launch.create(tmp_path, replace(spec, prune=prune, recover=recipe), mine=True)
    precision = multiplied_in("auto", torch.device("cpu"))  # this machine's, for whichever goes on
    monkeypatch.setattr(needs, "needed_bytes", needed)
    monkeypatch.setattr(needs, "free_memory", lambda device: 40)
    execute(run_dir)
    chosen = {"recover": {"micro_batch": 2, "gradient_checkpointing": "off", "precision": precision}}
    assert read_spec(run_dir).extra[FITTED] == chosen


def test_a_recovery_that_was_fitted_before_there_was_a_choice_goes_on_in_float32(
    tmp_path: Path, spec: RunSpec
) -> None:
    fitted = {"recover": {"micro_batch": 2, "gradient_checkpointing": "off"}}
    recipe = RecoverSpec("lora", precision="bf16")
    run_dir = launch.create(tmp_path, replace(spec, recover=recipe, extra={FITTED: fitted}), mine=True)
    work: Any = SimpleNamespace(run_dir=run_dir, spec=read_spec(run_dir))
    loaded: Any = SimpleNamespace(device=torch.device("cpu"))
    goes_on = needs.fitted_recipe(work, loaded, Graph("tiny", "llama", False, 0.0, {}, (), (), ()), "recover")
    assert (goes_on.precision, goes_on.micro_batch) == ("no", 2)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_estimate_is_near_what_a_step_keeps(tmp_path: Path, precision: str) -> None:
    """Everything that autograd keeps for the backward pass of a step, and is no parameter, counted once."""
    loop = trainer(tmp_path, batch=4, lora_rank=2, layer_weight=0.1, precision=precision)
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
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda value: alive.append(value) or note(value), lambda v: v
    )
    with hooks, loop.team.accelerator.autocast():
        training.loss([0, 1, 2, 3])
    fresh = trainer(tmp_path / "fresh", lora_rank=0).training
    taken = Taken(4 * ids(model).shape[1], False, 0, "all", copies=2, logits=3, layers=3, precision=precision)
    shapes = shapes_of(fresh.masks.graph)
    estimate = needed_bytes(shapes, taken, 4)
    assert 0.5 < estimate / sum(kept.values()) < 2.0
    assert needed_bytes(shapes, replace(taken, recompute=True), 4) < estimate


def test_the_machine_says_what_is_free() -> None:
    assert free_memory(torch.device("cpu")) > 2**20


def test_more_than_can_go_is_said_before_anything_is_measured(tmp_path: Path, spec: RunSpec) -> None:
    much = replace(spec, prune=replace(spec.prune, sparsity=0.995))
    refused(tmp_path, much, NotPrunableError, "At most .* can go")
    ranked = replace(spec, prune=PruneSpec("random", 0.995))
    refused(tmp_path, ranked, NotPrunableError, "At most .* can go")
