"""Benchmarks as a stage of a run: which model, told task by task, every question kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.cache import cache_folder
from core.results.tasks import BENCHMARKS, BenchmarkResult, TaskResult, keep_benchmarks, read_benchmarks
from core.spec.evaluate import EvalSpec
from core.spec.run import RunSpec
from core.stages.stage import Stage, always
from core.stages.work import State, kept


def benchmark(side: str, key: str, when: Callable[[RunSpec], bool] = always) -> Stage:
    """The stage that scores one model; a run that asks for no task has none.

    Args:
        side: `model`, or which of a pruning run's: `dense`, `pruned`, `recovered`.
        key: how `metrics.json` names what comes out.
    """
    whose = "" if side == "model" else f" {side}"
    return Stage(
        f"benchmark{whose}",
        f"Scoring the{whose} model on benchmarks",
        lambda state: score(state, side, key),
        lambda spec: bool(spec.evaluate.tasks) and when(spec),
    )


def check(asked: EvalSpec) -> None:
    """Find out before anything is started whether the tasks exist and a mirror has their files.

    Raises:
        UnknownNameError: no such task; names the nearest. DataError: the mirror lacks a file.
    """
    if not asked.tasks:
        return
    from core.evaluate.task_data import prepare
    from core.evaluate.task_lm import quiet
    from core.evaluate.tasks import requests

    with quiet():
        for request in requests(asked.tasks, asked.num_fewshot):
            prepare(request, _mirror(asked))


def score(state: State, side: str, key: str) -> None:
    """Score one model; what is done is kept in `benchmarks.json` and, by weights, for other runs.

    `metrics.json` gets task -> metrics, `stderr`, `n` and how it was measured.

    Raises:
        InputError: nothing could be scored, e.g. no prompt fits the context.
    """
    from core.evaluate.benchmarks import run_benchmarks

    work, recorder, asked = state.work, state.work.recorder, state.work.spec.evaluate
    done: dict[str, TaskResult] = {}

    def tell(result: TaskResult) -> None:
        done[result.task] = result
        recorder.message(_said(result))
        recorder.metric(f"task.{side}.{result.task}", 0, result.value)
        keep_benchmarks(work.run_dir, side, BenchmarkResult(done))

    scored = run_benchmarks(
        state.loaded.model,
        state.loaded.tokenizer,
        asked.tasks,
        limit=asked.limit,
        num_fewshot=asked.num_fewshot,
        benchmarks_dir=_mirror(asked),
        seed=work.spec.seed,
        cache_dir=cache_folder() / "scores",
        on_progress=lambda part, whole: recorder.progress(100 * part // whole, 100, "% of the tasks"),
        on_task=tell,
    )
    for reason in scored.refused.values():
        recorder.warn(f"not scored: {reason}")
    keep_benchmarks(work.run_dir, side, scored)
    recorder.artifact(BENCHMARKS)
    state.metrics[key] = scored.summary()


def _said(result: TaskResult) -> str:
    error = "" if result.stderr is None else f" ± {result.stderr:.4f}"
    earlier = ", known from before" if result.cached else ""
    return f"{result.task}: {result.metric} {result.value:.4f}{error}, n = {result.n:,}{earlier}"


def scored_earlier(state: State) -> None:
    """Take over what the run whose result is recovered scored of the dense model, if it did."""
    dense = (kept(read_benchmarks, Path(state.work.spec.model.source)) or {}).get("dense")
    if dense is not None and dense.tasks:
        keep_benchmarks(state.work.run_dir, "dense", dense)
        state.metrics["tasks_before"] = dense.summary()


def _mirror(asked: EvalSpec) -> Path | None:
    return Path(asked.benchmarks_dir) if asked.benchmarks_dir else None
