"""A cut that fails its check: what was trained is kept with the numbers, and the run goes on from there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import NotPrunableError
from core.files import read_json
from core.models import load as models
from core.results.agreement import CHECK, read_check
from core.runs import launch
from core.runs.artifacts import CHECKPOINT, EVENTS, METRICS, MODEL, read_plan
from core.runs.events import EventReader, metric_series
from core.runs.status import read_status
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.stages.worker import execute
from core.surgery import operate as surgery
from tests.stages.steps import again, done

OPTIONS = {"steps": 6, "batch": 2, "precision": "no", "lora_rank": 2, "gap": 0.1, "interval": 0.05,
           "held": 2, "measure_every": 4, "checkpoint_every": 3}  # fmt: skip


def test_how_close_every_layer_came_is_kept(tmp_path: Path, spec: RunSpec) -> None:
    check = read_check(done(tmp_path, spec))
    assert [place.where for place in check.cut] == ["model.layers.0", "model.layers.1", "the output layer"]
    assert all(place.holds and place.allowed > 0 for place in check.cut)


def test_what_was_trained_survives_a_cut_that_fails(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = replace(spec, prune=PruneSpec("nuteprune", sparsity=0.3, options=OPTIONS))
    run_dir = launch.create(tmp_path, trained, mine=True)
    with monkeypatch.context() as patch:
        right = surgery._left
        patch.setattr(
            surgery, "_left", lambda p, dims: right(p, dims).roll(1, 1) if 1 in dims else right(p, dims)
        )
        with pytest.raises(NotPrunableError, match="what it did with them masked"):
            execute(run_dir)
    said = read_status(run_dir).error or {}
    assert str(run_dir) in said["message"] and CHECK in said["message"] and "resuming" in said["message"]
    assert not all(place.holds for place in read_check(run_dir).cut)
    assert (run_dir / CHECKPOINT / "nuteprune" / "nuteprune.safetensors").is_file()
    plan = read_plan(run_dir)
    again(run_dir)
    events = EventReader(run_dir / EVENTS).read()
    steps = [step for step, _ in metric_series(events)["train.kl"]]
    assert steps == list(range(1, OPTIONS["steps"] + 1)), "no step was taken again"
    assert read_plan(run_dir) == plan and (run_dir / MODEL).is_dir()
    assert all(place.holds for place in read_check(run_dir).cut)
    assert read_json(run_dir / METRICS)["ppl_after"] > 0


def test_the_saved_model_is_read_back_and_keeps_licence_and_type(
    tmp_path: Path, spec: RunSpec, tiny_llama_folder: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_llama_folder, source)
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    save_file(
        {name: value.bfloat16() for name, value in load_file(source / "model.safetensors").items()},
        source / "model.safetensors",
        metadata={"format": "pt"},
    )
    run_dir = done(tmp_path / "runs", replace(spec, model=ModelSpec(str(source), "cpu")))
    card = (run_dir / MODEL / "README.md").read_text(encoding="utf-8")
    assert "\nlicense: apache-2.0\n" in card.split("---")[1]
    assert "license is apache-2.0" in card
    weights = load_file(run_dir / MODEL / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert [row.holds for row in read_check(run_dir).saved] in ([True], [True, True])
    again = models.load(str(run_dir), device="cpu")
    assert (again.stored, again.dtype) == (torch.bfloat16, torch.float32)
    for path in (run_dir / MODEL).iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
