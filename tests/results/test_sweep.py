"""Sweeps on a tiny model: every point is the run it stands for, and none is measured twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.capture.statistics import capture
from core.errors import ArtifactError, SpecError, StopRequested
from core.evaluate.perplexity import perplexity
from core.files import read_json, write_json
from core.results.noise import perplexity_difference
from core.results.perplexity import PERPLEXITY, read_perplexities
from core.results.scores import SCORES
from core.results.sweep import SWEEP, Point, Sweep, pareto, planned, read_sweep, run_of, write_sweep
from core.runs import launch
from core.runs.artifacts import CHECKPOINT, METRICS, read_spec
from core.runs.command_line import command_line
from core.runs.status import Status, read_status, write_status
from core.spec.calibration import DataSpec
from core.spec.evaluate import EvalSpec
from core.spec.fields import OPTIONS
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from core.stages import steps as stages
from core.stages import sweep as sweeping
from core.stages.check import check
from core.stages.worker import execute


@pytest.fixture(scope="module")
def spec(tiny_llama_folder: Path, texts: tuple[Path, Path]) -> RunSpec:
    """A sweep of 2 seeds x 2 sizes x 2 methods x 2 sparsities."""
    return RunSpec(
        goal="sweep",
        model=ModelSpec(str(tiny_llama_folder), "cpu"),
        calibration=DataSpec(str(texts[0]), length=16),
        evaluate=EvalSpec(str(texts[1]), window=16, tokens=64, prompts=(), efficiency=False),
        sweep=SweepSpec(("taylor_first", "l2"), (0.1, 0.3), seeds=(0, 1), samples=(2, 4)),
    )


def go(folder: Path, spec: RunSpec) -> Path:
    run_dir = launch.create(folder, spec, mine=True)
    execute(run_dir)
    return run_dir


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, spec: RunSpec) -> Path:
    return go(tmp_path_factory.mktemp("runs"), spec)


def test_every_combination_is_measured_once(swept: Path, spec: RunSpec) -> None:
    found = read_sweep(swept)
    assert [point.key for point in found.points] == [point.key for point in planned(spec)]
    assert len(found.done) == found.planned == spec.sweep.points == 16
    assert all(point.ppl and point.params and not point.error for point in found.points)
    assert len({point.ppl for point in found.points if point.method == "taylor_first"}) > 4


def test_a_pass_keeps_its_scores_and_no_run_lies_in_a_run(swept: Path) -> None:
    kept = {str(path.relative_to(swept / CHECKPOINT)) for path in (swept / CHECKPOINT).rglob("*.*")}
    assert kept == {f"seed{seed}-samples{n}/{SCORES}" for seed in (0, 1) for n in (2, 4)}
    texts = {name: text for name, text in read_spec(swept).extra.items() if name.startswith("calibration")}
    assert len(texts) == 1 + 4 and all(len(text["sha256"]) == 64 for text in texts.values())


def test_a_point_is_the_run_it_stands_for(swept: Path, spec: RunSpec, tmp_path: Path) -> None:
    point = next(p for p in read_sweep(swept).points if p.key[0] == "taylor_first" and p.seed == 1)
    metrics = read_json(go(tmp_path, run_of(spec, point)) / METRICS)
    assert metrics["params_after"] == point.params and metrics["sparsity"] == point.sparsity
    assert metrics["ppl_after"] == pytest.approx(point.ppl, rel=1e-5)
    assert metrics["ppl_before"] == pytest.approx(read_sweep(swept).ppl, rel=1e-6)
    _, facts = metrics["perplexities"]
    on_facts = read_sweep(swept).on(1)
    assert on_facts.text == facts["ppl_text"] and on_facts.ppl == pytest.approx(facts["ppl_before"], rel=1e-6)
    assert on_facts.done[point.key].ppl == pytest.approx(facts["ppl_after"], rel=1e-5)
    assert on_facts.done[point.key].change_stderr and on_facts.front() != read_sweep(swept).front()


def test_a_point_is_as_sure_as_the_run_it_stands_for(swept: Path, spec: RunSpec, tmp_path: Path) -> None:
    found = read_sweep(swept)
    point = next(p for p in found.points if p.key[0] == "taylor_first" and p.seed == 1)
    run_dir = go(tmp_path, run_of(spec, point))
    metrics, kept = read_json(run_dir / METRICS), read_perplexities(run_dir)
    against = perplexity_difference(kept["dense"][0], kept["pruned"][0])
    assert found.ppl_stderr == pytest.approx(metrics["ppl_stderr_before"], rel=1e-4)
    assert point.ppl_stderr == pytest.approx(metrics["ppl_stderr_after"], rel=1e-4)
    assert point.change_stderr == pytest.approx(against.noise, rel=1e-3)
    assert found.change(point).change == pytest.approx(against.change, rel=1e-3)
    assert (found.windows, found.change(point).verdict) == (4, against.verdict)


def test_a_sweep_from_before_errors_were_kept_is_read_and_goes_on(
    swept: Path, spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its points stay without; the rest has errors, but no noise, for the dense model's windows are gone."""
    monkeypatch.setattr(launch, "start_next", lambda folder: None)
    run_dir = go(tmp_path, replace(spec, sweep=replace(spec.sweep, methods=("l2",), seeds=(0,))))
    raw = read_json(run_dir / SWEEP)
    del raw["ppl_stderr"], raw["others"], raw["points"][1:]
    for name in ("ppl_stderr", "change_stderr", "others"):
        del raw["points"][0][name]
    write_json(run_dir / SWEEP, raw)
    (run_dir / PERPLEXITY).unlink()
    old = read_sweep(run_dir)
    assert old.ppl_stderr is None and old.change(old.points[0]).verdict == "unknown"
    write_status(run_dir, Status())
    execute(run_dir)
    first, *rest = read_sweep(run_dir).points
    assert first == old.points[0] and len(rest) == 3
    assert all(point.ppl_stderr and point.change_stderr is None for point in rest)
    assert not any(point.others for point in rest) and len(read_sweep(run_dir).texts) == 1


def test_points_of_the_past_say_what_their_words_meant_then(tmp_path: Path) -> None:
    point = Point("taylor_mix", 0.2, "local", "pre_pruning", 0, 16, ppl=9.0)
    write_sweep(tmp_path, Sweep(9.5, 10, 5, "t", 8, 64, "c", 1, (point,)))
    assert read_sweep(tmp_path).points == (point,), "written today"
    old = read_json(tmp_path / SWEEP)
    del old["format"]
    write_json(tmp_path / SWEEP, old)
    assert read_sweep(tmp_path).points == (
        replace(point, method="taylor_mix_per_sample", reconstruct="pre_pruning_refit"),
    )


def test_refitted_points_are_their_runs_and_leave_the_model_as_it_was(tmp_path: Path, spec: RunSpec) -> None:
    refits = ("none", "bias", "least_squares", "pre_pruning", "pre_pruning_refit")
    spec = replace(spec, prune=replace(spec.prune, recovery_samples=8))
    axes = SweepSpec(("l2",), (0.3,), reconstruct=refits, seeds=(1,), samples=(4,))
    points = read_sweep(go(tmp_path / "sweep", replace(spec, sweep=axes))).points
    again = replace(axes, reconstruct=refits[::-1])  # in the other order: no point may depend on those before
    other = read_sweep(go(tmp_path / "again", replace(spec, sweep=again))).points
    assert [point.ppl for point in points] == pytest.approx([point.ppl for point in other[::-1]], rel=1e-6)
    assert len({point.ppl for point in points}) == 5
    for point in points[1:]:
        metrics = read_json(go(tmp_path / point.reconstruct, run_of(spec, point)) / METRICS)
        assert metrics["ppl_after"] == pytest.approx(point.ppl, rel=1e-4)
        assert metrics["params_after"] == point.params


def test_one_pass_serves_all_points_that_share_it(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[tuple[int, int]] = []
    real = capture

    def counted(*given: Any, **named: Any) -> Any:
        passes.append((len(given[2]), len(passes)))
        return real(*given, **named)

    monkeypatch.setattr(stages, "capture_statistics", counted)
    go(tmp_path, spec)
    assert [windows for windows, _ in passes] == [2, 4, 2, 4]


def test_the_same_plan_is_not_measured_again(
    tmp_path: Path, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[float] = []
    real = perplexity
    monkeypatch.setattr(
        sweeping,
        "perplexity",
        lambda *a, **k: measured.append(0.0) or real(*a, **k),
    )
    found = read_sweep(go(tmp_path, replace(spec, sweep=replace(spec.sweep, methods=("l2",)))))
    assert (
        len(found.points) == 8 and len(measured) == 2 * 2
    )  # on two texts, and two sparsities of one ranking


def test_a_stopped_sweep_keeps_its_points_and_does_not_repeat_them(
    tmp_path: Path, spec: RunSpec, swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = launch.create(tmp_path, spec, mine=True)
    measured: list[Point] = []
    real = sweeping._measured

    def stopping(work: Any, *given: Any) -> Point:
        if len(measured) == 5:
            raise StopRequested("enough")
        measured.append(1)
        return real(work, *given)

    monkeypatch.setattr(sweeping, "_measured", stopping)
    with pytest.raises(StopRequested):
        execute(run_dir)
    half = read_sweep(run_dir)
    assert len(half.points) == 5 and read_status(run_dir).state == "stopped"
    monkeypatch.setattr(sweeping, "_measured", lambda work, *given: measured.append(1) or real(work, *given))  # type: ignore[func-returns-value]
    monkeypatch.setattr(launch, "start_next", lambda folder: None)
    launch.resume(run_dir)
    execute(run_dir)
    whole = read_sweep(run_dir)
    assert whole.points[:5] == half.points and len(measured) == 16
    measured_of = [(p.key, p.ppl, p.ppl_stderr, p.change_stderr) for p in read_sweep(swept).points]
    assert [(p.key, p.ppl, p.ppl_stderr, p.change_stderr) for p in whole.points] == measured_of


def test_a_target_out_of_reach_is_a_point_that_says_why(tmp_path: Path, spec: RunSpec) -> None:
    asked = replace(spec, sweep=SweepSpec(("l2",), (0.2, 0.99), samples=(2,)))
    fine, refused = read_sweep(go(tmp_path, asked)).points
    assert fine.ppl and not fine.error
    assert refused.ppl is None and "one unit of every group must stay" in refused.error


def test_the_front_holds_what_no_other_beats() -> None:
    def point(params: int | None, ppl: float | None) -> Point:
        return Point("l2", 0.1, "local", "none", 0, 16, params=params, ppl=ppl)

    points = [
        point(90, 30.0),
        point(80, 40.0),
        point(85, 50.0),
        point(70, 45.0),
        point(80, 41.0),
        point(None, None),
    ]
    assert [(p.params, p.ppl) for p in pareto(points)] == [(90, 30.0), (80, 40.0), (70, 45.0)]
    assert pareto([]) == []
    landed = [point(9000, 30.0), point(8000, 40.0), point(7990, 300.0)]  # the last a unit beyond its target
    assert pareto(landed) == landed
    whole = Sweep(20.0, 10_000, 1, "words", 8, 8, "words", planned=3, points=tuple(landed))
    assert whole.front() == landed[:2]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: SweepSpec(methods=()), "methods is empty"),
        (lambda: SweepSpec(sparsities=(0.1, 20)), "write 0.2 for 20 %"),
        (lambda: SweepSpec(seeds=(-1,)), "seeds must be whole numbers from 0"),
        (lambda: SweepSpec(samples=(0,)), "samples must be whole numbers from 1"),
        (lambda: SweepSpec(seeds=(1, 1)), "names a value twice"),
        (lambda: SweepSpec(seeds=tuple(range(3000))), "points; give fewer"),
        (
            lambda: OPTIONS["sweep.seeds"].read("0,x"),
            "seeds must be whole numbers separated by commas, got '0,x'",
        ),
        (lambda: OPTIONS["sweep.drops"].read("layer"), "got 'layer'; write none, layer=2 or layer=1"),
        (lambda: OPTIONS["sweep.drops"].read("none,none,layer=0"), "got 'layer=0'"),
        (lambda: SweepSpec(drops=("", "")), "drops names a value twice"),
        (lambda: SweepSpec(drops=("block=1",)), "block"),
    ],
)
def test_what_cannot_be_swept_is_refused(make: Any, named: str) -> None:
    with pytest.raises(SpecError, match=named):
        make()


def test_an_unknown_scope_is_refused_before_anything_starts(spec: RunSpec) -> None:
    with pytest.raises(SpecError, match="scope"):
        check(replace(spec, sweep=replace(spec.sweep, scopes=("lokal",))))


def test_spec_and_command_say_the_same(spec: RunSpec) -> None:
    assert RunSpec.from_json(spec.to_json()) == spec
    words = command_line(spec)
    assert words.startswith("python -m core sweep ") and "--methods taylor_first,l2" in words
    assert "--sparsities 0.1,0.3" in words and "--seeds 0,1" in words and "--samples 2,4" in words
    drops = OPTIONS["sweep.drops"].read("none, layer=2,layer=1+ffn_block=2")
    assert drops == ("", "layer=2", "layer=1,ffn_block=2")
    deep = replace(spec, sweep=replace(spec.sweep, drops=drops))
    assert "--drops none,layer=2,layer=1+ffn_block=2" in command_line(deep) and "--drops" not in words


def test_a_damaged_record_is_said(tmp_path: Path) -> None:
    (tmp_path / SWEEP).write_text('{"ppl": 1}')
    with pytest.raises(ArtifactError, match="run the sweep again"):
        read_sweep(tmp_path)
