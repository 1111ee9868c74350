"""Weights that are not trained are sharded over processes, which learn alike, and come back as they were."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import SpecError
from core.models.saved import from_pretrained
from core.runs import company
from core.runs.artifacts import MODEL, read_plan
from core.runs.status import Status, write_status
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from core.stages import check, together
from core.stages.worker import execute
from tests.stages.test_nuteprune import curves, started
from tests.stages.test_nuteprune import spec as spec
from tests.stages.test_together import KILLED, TRAIN, Launch, points, prune, said, shared, the_run
from tests.stages.test_together import alone as alone
from tests.stages.test_together import second as second


def sharded(run_dir: Path) -> list[float]:
    """The share of the weights that the first process held, in every training."""
    shares = re.findall(r"are sharded: ([\d.]+)% of them", "\n".join(said(run_dir)))
    return [float(share) / 100 for share in shares]


def leave() -> None:
    """Be alone again."""
    company._joined.clear()
    together._met.clear()


def test_sharded_masks_learn_what_one_process_learns_and_it_goes_on_without_the_others(
    tmp_path: Path, spec: RunSpec, alone: Path, second: Launch, capfd: pytest.CaptureFixture[str]
) -> None:
    second(KILLED)
    assert prune(shared(spec, shard_weights="on"), tmp_path) == 2
    run_dir = the_run(tmp_path)
    word = "Process 2 of 2 is gone without a word: killed, possibly out of memory."
    assert capfd.readouterr().err.splitlines()[-1] == word
    assert sharded(run_dir) == [pytest.approx(0.5, abs=0.02)]
    leave()
    write_status(run_dir, Status(state="queued"))
    execute(run_dir)
    assert "One process trains, so that no weights are sharded" in said(run_dir)
    assert read_plan(run_dir) == read_plan(alone)
    ours, theirs = curves(run_dir), curves(alone)
    for name in ("kl", "expected", "lambda_1", "ppl_cut"):
        assert ours[f"train.{name}"] == pytest.approx(theirs[f"train.{name}"], rel=1e-3), name


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"method": "lora"}, marks=pytest.mark.slow),
        {"method": "distill", "layer_weight": 0.1},
    ],
    ids=["lora", "distill"],
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
    trained = [name for name in a if "proj" in name]
    assert 0 < len(trained) < len(a)
    for name, value in a.items():
        if name in trained:
            torch.testing.assert_close(value, b[name], rtol=1e-3, atol=1e-4)
        else:
            assert torch.equal(value, b[name]), name


def test_sharding_is_refused_for_one_process_and_where_all_weights_are_trained(spec: RunSpec) -> None:
    with pytest.raises(SpecError, match=r"shard_weights shares .* and there is one; .*processes 2"):
        check.check(shared(spec, shard_weights="on"))
    with pytest.raises(SpecError, match=r"shard_weights must be auto or off with targets weights"):
        RecoverSpec("distill", targets="weights", shard_weights="on")
