"""Weights that are not trained are sharded over processes, which learn alike, and come back as they were."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.cli.app import main
from core.errors import SpecError, StopRequested
from core.models.saved import from_pretrained
from core.runs.artifacts import MODEL, STOP, read_plan
from core.runs.recorder import Recorder
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from core.stages import check
from core.stages.worker import execute
from tests.stages.test_nuteprune import curves, started
from tests.stages.test_nuteprune import spec as spec
from tests.stages.test_together import MISBEHAVING, TRAIN, Launch, points, prune, said, shared, the_run
from tests.stages.test_together import alone as alone
from tests.stages.test_together import second as second


def sharded(run_dir: Path) -> list[float]:
    """The share of the weights that the first process held, in every training."""
    shares = re.findall(r"are sharded: ([\d.]+)% of them", "\n".join(said(run_dir)))
    return [float(share) / 100 for share in shares]


def same_but_for_training(one: dict[str, Tensor], other: dict[str, Tensor], far: float) -> None:
    """Of two models that were trained alike, matrices in layers are alike, and all else is the same bits."""
    trained = [name for name in one if "proj" in name]
    assert 0 < len(trained) < len(one)
    for name, value in one.items():
        if name in trained:
            torch.testing.assert_close(value, other[name], rtol=1e-3, atol=far)
        else:
            assert torch.equal(value, other[name]), name


def test_a_run_goes_on_with_shards_and_without_and_ends_as_one_of_one_process(
    tmp_path: Path,
    spec: RunSpec,
    alone: Path,
    second: Launch,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    original = Recorder.metric

    def metric(recorder: Recorder, name: str, step: float, value: float) -> None:
        original(recorder, name, step, value)
        if name == "train.target" and step == 4:
            (recorder.run_dir / STOP).write_text("")

    monkeypatch.setattr(Recorder, "metric", metric)
    run_dir = started(tmp_path, shared(spec, shard_weights="on"))
    with pytest.raises(StopRequested):
        execute(run_dir)
    monkeypatch.setattr(Recorder, "metric", original)
    assert sharded(run_dir) == [] and "One process trains, so that no weights are sharded" in said(run_dir)
    second(MISBEHAVING.format(what="os.kill(os.getpid(), signal.SIGKILL)", step=4))
    assert main(["runs", "resume", run_dir.name, "--runs-dir", str(tmp_path)]) == 2
    word = "Process 2 of 2 is gone without a word: killed, possibly out of memory."
    assert capfd.readouterr().err.splitlines()[-1] == word
    assert sharded(run_dir) == [pytest.approx(0.5, abs=0.02)]
    second()
    assert main(["runs", "resume", run_dir.name, "--runs-dir", str(tmp_path)]) == 0
    assert "Training goes on after step 6 of 12" in said(run_dir) and len(sharded(run_dir)) == 2
    assert read_plan(run_dir) == read_plan(alone)
    ours, theirs = curves(run_dir), curves(alone)
    for name in ("kl", "expected", "lambda_1", "ppl_cut"):
        assert ours[f"train.{name}"] == pytest.approx(theirs[f"train.{name}"], rel=1e-3), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"method": "lora"}, {"method": "distill", "layer_weight": 0.1}], ids=["lora", "distill"]
)
def test_a_sharded_recovery_learns_what_one_process_learns(
    tmp_path: Path, spec: RunSpec, texts: tuple[Path, Path], second: Launch, changes: dict[str, Any]
) -> None:
    recipe = replace(TRAIN, data=str(texts[0]), gradient_checkpointing="on", **changes)
    asked = replace(spec, prune=PruneSpec("l2", 0.3), recover=recipe)
    one = started(tmp_path / "one", asked)
    execute(one)
    other = second()
    assert prune(replace(asked, recover=replace(recipe, shard_weights="on")), tmp_path) == 0 == other.wait(20)
    two = the_run(tmp_path)
    assert sharded(two) == [pytest.approx(0.5, abs=0.02)]
    ours, theirs = points(two), points(one)
    names = [name for name in theirs if name.startswith("recover.")]
    assert len(theirs["recover.loss"]) == 6 and "recover.held_ppl" in names
    for name in names:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name
    a, b = (from_pretrained(run_dir / MODEL).state_dict() for run_dir in (two, one))
    same_but_for_training(a, b, 1e-4)


def test_sharding_is_refused_for_one_process_and_where_all_weights_are_trained(spec: RunSpec) -> None:
    with pytest.raises(SpecError, match=r"shard_weights shares .* and there is one; .*processes 2"):
        check.check(shared(spec, shard_weights="on"))
    with pytest.raises(SpecError, match=r"shard_weights must be auto or off with targets weights"):
        RecoverSpec("distill", targets="weights", shard_weights="on")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "lora_gradient", "distillation": "dense"},
        {"distillation": "second_model", "layer_weight": 0.1},
    ],
    ids=["lora_gradient", "second_model"],
)
def test_sharded_masks_that_look_at_weights_or_have_a_second_model(
    tmp_path: Path, spec: RunSpec, second: Launch, changes: dict[str, Any]
) -> None:
    one = started(tmp_path / "one", shared(spec, accumulate=2, **changes))
    execute(one)
    other = second()
    assert prune(shared(spec, shard_weights="on", **changes), tmp_path) == 0 == other.wait(20)
    two = the_run(tmp_path)
    assert sharded(two) == [pytest.approx(0.5, abs=0.02)] and read_plan(two) == read_plan(one)
    for name in ("kl", "expected", "ppl_cut"):
        ours, theirs = curves(two)[f"train.{name}"], curves(one)[f"train.{name}"]
        assert ours == pytest.approx(theirs, rel=1e-3), name


def test_a_model_whose_weights_rest_elsewhere_is_trained_by_shards(
    tmp_path: Path, spec: RunSpec, texts: tuple[Path, Path], second: Launch
) -> None:
    """On disk, as of a model larger than its device: masks learn, it is cut, and a teacher teaches."""
    recipe = replace(
        TRAIN, method="distill", layer_weight=0.1, data=str(texts[0]), steps=2, shard_weights="on"
    )
    on_disk = replace(spec.model, device_map="auto", max_memory="cpu=64KiB")
    asked = shared(replace(spec, recover=recipe), shard_weights="on", steps=4)
    one = started(
        tmp_path / "one", shared(replace(spec, recover=replace(recipe, shard_weights="off")), steps=4)
    )
    execute(one)
    other = second()
    assert prune(replace(asked, model=on_disk), tmp_path) == 0 == other.wait(20)
    two = the_run(tmp_path)
    assert "MiB on disk" in "\n".join(said(two)) and len(sharded(two)) == 2
    assert read_plan(two) == read_plan(one)
    ours, theirs = points(two), points(one)
    for name in ("train.kl", "train.ppl_cut", "recover.loss", "recover.held_ppl"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name
    a, b = (from_pretrained(run_dir / MODEL).state_dict() for run_dir in (two, one))
    same_but_for_training(a, b, 1e-3)


def test_weights_that_rest_elsewhere_are_not_trained_around_by_one_process(spec: RunSpec) -> None:
    mapped = replace(spec, model=replace(spec.model, device_map="auto"))
    with pytest.raises(SpecError, match=r"method nuteprune, which trains: no gradient .* shard_weights on"):
        check.check(mapped)
    with pytest.raises(SpecError, match="trained around by several processes, and there is one; resume"):
        check.check_device(shared(mapped, shard_weights="on"))
