"""What a person is told will be done is what is done: for every goal, with and without its options."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.results.tasks import BenchmarkResult
from core.runs.status import read_status
from core.spec.explore import ExploreSpec
from core.spec.model import ModelSpec
from core.spec.prune import PruneSpec
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from core.stages import stage
from core.stages.pipeline import parts_of
from core.stages.stage import Repeated, Stage, due
from tests.stages.steps import done, staged
from tests.stages.test_nuteprune import OPTIONS

FIRST = ["load", "graph", "baseline"]
TRAIN = RecoverSpec(
    "lora", learning_rate=5e-3, warmup=1, steps=1, batch=2, micro_batch=2, length=16, eval_every=1, held=2
)
UNITS = {"L00.ffn_channel": (0, 1)}


def exploring(*analyses: Any, **changes: Any) -> Callable[[RunSpec], RunSpec]:
    asked = ExploreSpec(analyses, ("l2",), sensitivity_criterion="l2", sensitivity_tokens=32, **changes)
    return lambda spec: replace(spec, goal="explore", explore=asked)


def pruning(*given: Any, **changes: Any) -> Callable[[RunSpec], RunSpec]:
    return lambda spec: replace(spec, prune=PruneSpec(*given, **changes))


def training(spec: RunSpec) -> RunSpec:
    return replace(spec, prune=PruneSpec("random", 0.3), recover=replace(TRAIN, data=spec.calibration.name))


def sweeping(*methods: str) -> Callable[[RunSpec], RunSpec]:
    asked = SweepSpec(methods, (0.1, 0.2), seeds=(0, 1), samples=(2,))
    return lambda spec: replace(spec, goal="sweep", sweep=asked)


def scoring(ask: Callable[[RunSpec], RunSpec]) -> Callable[[RunSpec], RunSpec]:
    """The same run with a benchmark."""

    def asked(spec: RunSpec) -> RunSpec:
        spec = ask(spec)
        return replace(spec, evaluate=replace(spec.evaluate, tasks=("bundled_capitals",)))

    return asked


def evaluating(spec: RunSpec) -> RunSpec:
    return replace(spec, goal="evaluate")


CASES = {
    "explore": (
        exploring("groups", "similarity", "scores", "sensitivity"),
        ["load", "graph", "similarity", "score", "sensitivity"],
    ),
    "explore groups": (exploring("groups"), ["load", "graph"]),
    "explore config": (exploring("groups", config_only=True), ["graph"]),
    "explore similarity": (exploring("similarity"), ["load", "graph", "similarity"]),
    "explore scores": (exploring("scores"), ["load", "graph", "score"]),
    "explore sensitivity": (exploring("sensitivity"), ["load", "graph", "score", "sensitivity"]),
    "prune": (
        pruning("taylor_first", 0.3),
        [*FIRST, "capture", "score", "plan", "surgery", "evaluate", "export"],
    ),
    "prune by hand": (pruning("manual", units=UNITS), [*FIRST, "plan", "surgery", "evaluate", "export"]),
    "prune and refit": (
        pruning("l2", 0.3, reconstruct="bias"),
        [*FIRST, "score", "plan", "reconstruct", "surgery", "evaluate", "export"],
    ),
    "prune without dependency": (
        pruning("l2", 0.3, without_dependency=True),
        [*FIRST, "score", "plan", "measure", "evaluate"],
    ),
    "nuteprune": (
        pruning("nuteprune", 0.3, options={**OPTIONS, "steps": 2, "start_from": ""}),
        [*FIRST, "train", "plan", "surgery", "evaluate", "export"],
    ),
    "nuteprune from scores": (
        pruning("nuteprune", 0.3, options={**OPTIONS, "steps": 2, "start_from": "wanda"}),
        [*FIRST, "capture", "score", "train", "plan", "surgery", "evaluate", "export"],
    ),
    "prune and train": (
        training,
        [*FIRST, "score", "plan", "surgery", "measure", "recover", "evaluate", "export"],
    ),
    "prune and score": (
        scoring(pruning("random", 0.3)),
        [*FIRST, "benchmark dense", "score", "plan", "surgery", "evaluate", "benchmark pruned", "export"],
    ),
    "prune, train and score": (
        scoring(training),
        [
            *FIRST, "benchmark dense", "score", "plan", "surgery", "measure", "benchmark pruned", "recover",
            "evaluate", "benchmark recovered", "export",
        ],
    ),
    "evaluate": (evaluating, ["load", "evaluate"]),
    "evaluate and score": (scoring(evaluating), ["load", "evaluate", "benchmark"]),
    "sweep": (sweeping("taylor_first"), [*FIRST, *["capture", "score", "sweep"] * 2]),
    "sweep without text": (sweeping("l2", "random"), [*FIRST, *["score", "sweep"] * 2]),
}  # fmt: skip


@pytest.fixture(name="spec")
def small(spec: RunSpec) -> RunSpec:
    """The same run, which measures as little as can be."""
    return replace(spec, evaluate=replace(spec.evaluate, tokens=32, prompts=()))


@pytest.fixture(autouse=True)
def unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks cost nothing here."""
    monkeypatch.setattr("core.evaluate.benchmarks.run_benchmarks", lambda *_, **__: BenchmarkResult({}))


def check(run_dir: Path, expected: list[str]) -> None:
    status = read_status(run_dir)
    assert staged(run_dir) == expected
    assert status.stages == list(dict.fromkeys(expected)) == list(status.titles)


@pytest.mark.parametrize("name", CASES)
def test_the_stages_that_are_told_are_the_stages_that_run(name: str, tmp_path: Path, spec: RunSpec) -> None:
    ask, expected = CASES[name]
    check(done(tmp_path, ask(spec)), expected)


def test_a_run_that_recovers_tells_its_stages_too(tmp_path: Path, spec: RunSpec) -> None:
    pruned = done(tmp_path, replace(spec, prune=PruneSpec("random", 0.3)))
    asked = replace(training(spec), goal="recover", model=ModelSpec(str(pruned), "cpu"))
    check(done(tmp_path, asked), ["refer", "load", "measure", "recover", "evaluate", "export"])
    last = [
        "refer",
        "load",
        "measure",
        "benchmark pruned",
        "recover",
        "evaluate",
        "benchmark recovered",
        "export",
    ]
    check(done(tmp_path, scoring(lambda _: asked)(spec)), last)


def test_no_run_has_two_stages_of_one_name_and_each_has_words(spec: RunSpec) -> None:
    for ask, _ in CASES.values():
        asked = ask(spec)
        stages = due(asked, parts_of(asked))
        assert len({stage.name for stage in stages}) == len(stages)
        assert all(stage.title[:1].isupper() and stage.title != stage.name for stage in stages)


def test_a_run_held_what_its_repeated_stages_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = iter((1.0, 3.0, 2.0))
    monkeypatch.setattr(stage, "peak_gib", lambda device: next(held))
    recorder = SimpleNamespace(stage=lambda name: None, log=lambda text: None)
    state: Any = SimpleNamespace(
        loaded=SimpleNamespace(device="cpu"), peak_gib=0.0, work=SimpleNamespace(recorder=recorder, spec=None)
    )
    monkeypatch.setattr(stage, "forget_peak", lambda device: None)
    step = Stage("step", "Step", lambda state: None)
    stage._go_through(state, [step, Repeated(lambda state: [copy.copy(state), copy.copy(state)], (step,))])
    assert state.peak_gib == 3.0
