"""Runs that drop whole blocks: measured, planned, saved, resumed, and refused before anything is slow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import NotPrunableError, SpecError
from core.models.saved import load
from core.results.blocks import read_blocks
from core.results.sweep import read_sweep, run_of
from core.results.widths import read_widths
from core.runs.artifacts import MODEL, read_metrics, read_plan, read_spec
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from core.stages.check import check
from tests.stages.steps import done, staged


@pytest.mark.parametrize("by", ["block_influence", "perplexity", "summed"])
def test_blocks_go_by_what_is_measured(by: str, tmp_path: Path, spec: RunSpec) -> None:
    asked = PruneSpec("taylor_first", 0.6, "local", drop="ffn_block=1,attention_block=1", drop_by=by)
    run_dir = done(tmp_path, replace(spec, prune=asked))
    plan, worth = read_plan(run_dir), read_blocks(run_dir)
    assert staged(run_dir).index("blocks") == staged(run_dir).index("plan") - 1
    assert worth.by == by and worth.criterion == ("taylor_first" if by == "summed" else "")
    for kind in ("ffn_block", "attention_block"):
        least = min((name for name in worth.worth if kind in name), key=lambda name: worth.worth[name])
        assert plan.removed[least] == (0,)
    assert abs(plan.sparsity - 0.6) * plan.params_in_scope <= 96
    model, _, _ = load(run_dir / MODEL)
    params = sum(parameter.numel() for parameter in model.parameters())
    assert params == read_metrics(run_dir)["params_after"] == plan.after.params  # type: ignore[union-attr]
    assert 0 in {layer["ffn"] for layer in read_widths(run_dir).layers}


def test_more_blocks_than_there_are_are_refused_at_once(spec: RunSpec) -> None:
    with pytest.raises(NotPrunableError, match="at most 1 can go"):
        check(replace(spec, prune=PruneSpec(drop="layer=2")))
    with pytest.raises(NotPrunableError, match="at most 1 can go"):
        check(replace(spec, goal="sweep", sweep=SweepSpec(("l2",), drops=("", "layer=2"))))
    with pytest.raises(SpecError, match="with --drop; leave that out"):
        check(replace(spec, prune=PruneSpec(drop="layer=1", rounds=2)))


def test_what_is_left_is_refitted_and_trained_back(tmp_path: Path, spec: RunSpec) -> None:
    asked = PruneSpec("ifv", 0.6, "al_am", drop="ffn_block=1", reconstruct="bias")
    text = spec.calibration.name
    recipe = RecoverSpec(method="lora", data=text, length=16, steps=2, batch=2, micro_batch=2)
    run_dir = done(tmp_path, replace(spec, prune=asked, recover=recipe))
    plan = read_plan(run_dir)
    gone = next(name for name in plan.removed if "ffn_block" in name)[:3]
    assert plan.biases and not any(f"layers.{int(gone[1:])}.mlp" in name for name in plan.biases)
    assert read_metrics(run_dir)["params_after"] == plan.after.params  # type: ignore[union-attr]
    load(run_dir / MODEL)


def test_points_of_a_sweep_drop_blocks_too(tmp_path: Path, spec: RunSpec) -> None:
    """Of every point other kinds of blocks; each is what a run of its own makes."""
    asked = replace(spec.prune, drop_by="perplexity")
    drops = ("", "layer=1", "ffn_block=1,attention_block=1")
    sweep = SweepSpec(("l2",), (0.2, 0.6), samples=(4,), drops=drops)
    run_dir = done(tmp_path, replace(spec, goal="sweep", prune=asked, sweep=sweep))
    small, points = ([p for p in read_sweep(run_dir).points if p.target == part] for part in (0.2, 0.6))
    assert [bool(point.error) for point in small] == [False, True, True]
    assert "layer=1 alone takes 50.0% of the parameters in scope, more than the 20.0%" in small[1].error
    assert [point.drop for point in points] == [*drops]
    assert all(point.sparsity == pytest.approx(0.6, abs=0.05) for point in points)
    assert len({point.ppl for point in points}) == 3
    alone = run_of(read_spec(run_dir), points[2])
    assert alone.prune.drop == drops[2]
    metrics = read_metrics(done(tmp_path / "alone", alone))
    assert metrics["ppl_after"] == pytest.approx(points[2].ppl, rel=1e-5)
