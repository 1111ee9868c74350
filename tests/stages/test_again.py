"""A run's model is pruned again, trained and pruned once more: plans compose, every folder reads alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import ArtifactError, ModelError, NotPrunableError, StopRequested
from core.files import read_json
from core.models.again import graph_of
from core.models.load import load
from core.models.saved import save
from core.plan.composed import what_is_left
from core.plan.cost import cost
from core.report.page import document
from core.report.run import Run
from core.results.agreement import read_check
from core.results.words import all_cuts
from core.runs import launch
from core.runs.artifacts import METRICS, MODEL, PLAN, read_graph, read_plan, read_spec
from core.runs.events import Event
from core.ship.delivery import deliver
from core.ship.records import subject_of
from core.ship.routes import require
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from core.stages.check import check
from core.stages.worker import execute
from pruneviz.data.runs import read_run
from pruneviz.figures.run_detail import run_facts
from tests.stages.steps import again, done, outcome

LAST = RecoverSpec(
    "lora", learning_rate=1e-2, warmup=1, steps=2, batch=2, micro_batch=2, length=16, held=2, precision="no"
)


def of_run(spec: RunSpec, run_dir: Path, **changes: object) -> RunSpec:
    return replace(spec, model=ModelSpec(str(run_dir), "cpu"), **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, spec: RunSpec, texts: tuple[Path, Path]) -> list[Path]:
    """Pruned by 15 %, trained, and pruned by 15 % again, with biases."""
    folder = tmp_path_factory.mktemp("again")
    first = done(folder, replace(spec, prune=PruneSpec("taylor_first", 0.15)))
    trained = replace(LAST, data=str(texts[0]))
    second = done(folder, of_run(spec, first, goal="recover", recover=trained))
    third = replace(spec, prune=PruneSpec("wifv", 0.15, reconstruct="bias"))
    return [first, second, done(folder, of_run(third, second))]


def test_the_saved_plan_is_both_plans_against_the_first_base(runs: list[Path]) -> None:
    first, _, last = runs
    step, whole, before = read_plan(last), read_plan(last / MODEL), read_plan(first)
    assert read_graph(last / MODEL).parameters == read_graph(first).parameters
    assert step.before and step.after and whole.before and whole.after
    assert step.before == before.after and whole.before == before.before and whole.after == step.after
    assert abs(step.sparsity - 0.15) < 0.05 and step.params_in_scope < before.params_in_scope
    assert whole.model == before.model and whole.method == "taylor_first + wifv"
    assert all(set(units) <= set(whole.removed[group]) for group, units in before.removed.items())
    left = what_is_left(read_graph(last / MODEL), whole)
    assert cost(left, {}) == step.after
    loaded = load(str(last), device="cpu")
    params = {name: tuple(one.shape) for name, one in loaded.model.named_parameters()}
    assert params == {name: one.shape for name, one in left.parameters.items()}


def test_every_layer_agrees_with_what_masks_said(runs: list[Path]) -> None:
    kept = read_check(runs[-1])
    assert kept.cut and kept.saved and all(row.holds for row in [*kept.cut, *kept.saved])


@pytest.mark.new_process
def test_another_process_computes_the_same(runs: list[Path], tmp_path: Path) -> None:
    loaded = load(str(runs[-1]), device="cpu")
    assert loaded.graph and loaded.plan
    ways = save(loaded.model, loaded.tokenizer, loaded.graph, loaded.plan, tmp_path / "model")
    assert ways and all(row.holds for row in ways)


def test_metrics_tell_this_cut_from_all_cuts(runs: list[Path]) -> None:
    first, second, last = (read_json(run / METRICS) for run in runs)
    assert "base" not in first and "base" not in second
    assert last["params_before"] == second["params_after"] == first["params_after"]
    assert last["params_base"] == first["params_before"] and last["base"] == read_plan(runs[0]).model
    assert last["sparsity_base"] > last["sparsity"] and last["sparsity_total_base"] == pytest.approx(
        1 - last["params_after"] / first["params_before"]
    )


def test_people_are_told_of_both(runs: list[Path]) -> None:
    metrics = read_json(runs[-1] / METRICS)
    both = all_cuts(metrics)
    assert f"of {metrics['base']}" in both and f"{100 * metrics['sparsity_base']:.1f} %" in both
    assert ("With earlier cuts", both) in run_facts(read_run(runs[-1]), 0.0)
    assert both in document([Run(runs[-1])]) and "earlier cuts" not in document([Run(runs[0])])
    card = (runs[-1] / MODEL / "README.md").read_text()
    assert "taylor_first + wifv" in card and "before the last cut" in card and "Cut 2: wifv" in card


def test_a_recovery_of_it_is_beside_the_model_that_was_given(
    runs: list[Path], spec: RunSpec, texts: tuple[Path, Path], tmp_path: Path
) -> None:
    again = replace(LAST, data=str(texts[0]), method="distill", layer_weight=1.0)
    asked = of_run(spec, runs[-1], goal="recover", recover=again)
    check(asked)
    run = done(tmp_path, asked)
    metrics, before = read_json(run / METRICS), read_json(runs[-1] / METRICS)
    for name in ("params_before", "params_after", "sparsity", "base", "sparsity_base", "ppl_before"):
        assert metrics[name] == before[name], name
    assert read_plan(run) == read_plan(runs[-1]) and read_plan(run / MODEL) == read_plan(runs[-1] / MODEL)


def test_hidden_channels_go_twice_and_the_teacher_keeps_up(
    spec: RunSpec, texts: tuple[Path, Path], tmp_path: Path
) -> None:
    kinds = ("residual_channel", "ffn_channel")
    once = replace(spec, prune=PruneSpec("l2", 0.2, kinds=kinds))
    first = done(tmp_path, once)
    recipe = replace(LAST, data=str(texts[0]), method="distill", layer_weight=1.0)
    last = done(tmp_path, of_run(once, first, recover=recipe))
    whole = read_plan(last / MODEL)
    assert len(whole.removed["residual_channel"]) > len(read_plan(first).removed["residual_channel"])
    assert read_plan(last).after == whole.after


@pytest.mark.parametrize("stage", ["plan", "evaluate"])
def test_stopped_and_resumed_it_ends_as_one_that_was_not(
    stage: str, runs: list[Path], spec: RunSpec, tmp_path: Path
) -> None:
    asked = read_spec(runs[-1])
    run_dir = launch.create(tmp_path, replace(asked, extra={}), mine=True)

    def stop_there(event: Event) -> None:
        if event.type == "stage" and event.stage == stage:
            raise StopRequested("here")

    with pytest.raises(StopRequested):
        execute(run_dir, stop_there)
    again(run_dir)
    assert outcome(run_dir) == outcome(runs[-1])
    assert read_plan(run_dir / MODEL) == read_plan(runs[-1] / MODEL)


def test_its_folders_are_exported_and_pruned_again(runs: list[Path], spec: RunSpec, tmp_path: Path) -> None:
    asked = of_run(spec, runs[-1], goal="export")
    for to in ("hf", "gguf"):
        require(to, subject_of(runs[-1] / MODEL))
    folder = tmp_path / "hf"
    deliver(asked, folder, lambda _: None, lambda *_: None, lambda _: None)
    last = done(tmp_path / "runs", of_run(spec, folder, prune=PruneSpec("l2", 0.1)))
    before = read_plan(runs[-1] / MODEL)
    assert read_plan(last).before == before.after and read_plan(last / MODEL).before == before.before
    assert len(read_plan(last / MODEL).notes) >= 3


def test_more_than_is_left_is_refused_before_anything_is_loaded(runs: list[Path], spec: RunSpec) -> None:
    with pytest.raises(NotPrunableError, match=r"At most 0\.\d+ of the parameters in scope can go"):
        check(of_run(spec, runs[-1], prune=PruneSpec("l2", 0.99)))
    graph = graph_of(ModelSpec(str(runs[-1])), config_only=True)
    units = graph.group("L00.ffn_channel").units
    with pytest.raises(NotPrunableError, match=f"units 0 to {units - 1}"):
        check(of_run(spec, runs[-1], prune=PruneSpec("manual", units={"L00.ffn_channel": (units,)})))


@pytest.mark.parametrize("damage", ["torn", "of another model"])
def test_a_damaged_plan_is_named_before_anything_is_loaded(
    damage: str, runs: list[Path], spec: RunSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(runs[0] / MODEL, folder)
    text = (folder / PLAN).read_text()
    if damage == "torn":
        (folder / PLAN).write_text(text[:50])
    else:
        (folder / PLAN).write_text(json.dumps(json.loads(text) | {"removed": {"L77.ffn_channel": [0]}}))
    with pytest.raises(ArtifactError, match=r"plan\.json"):
        check(of_run(spec, folder))


def test_a_run_whose_base_is_gone_can_be_pruned_but_not_taught(
    runs: list[Path], spec: RunSpec, texts: tuple[Path, Path], tmp_path: Path
) -> None:
    first = done(tmp_path, replace(spec, prune=PruneSpec("l2", 0.15)))
    second = done(tmp_path, of_run(spec, first, prune=PruneSpec("l2", 0.15)))
    shutil.rmtree(first)
    check(of_run(spec, second, prune=PruneSpec("l2", 0.15)))
    assert load(str(second), device="cpu").plan == read_plan(second / MODEL)
    recipe = replace(LAST, data=str(texts[0]), method="distill")
    with pytest.raises(ModelError, match="--teacher"):
        check(of_run(spec, second, goal="recover", recover=recipe))
    check(of_run(spec, second, goal="recover", recover=replace(LAST, data=str(texts[0]))))
