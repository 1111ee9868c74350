"""Benchmarks as a stage of a run: which model, told task by task, every question kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.models.demo import cache_folder
from core.models.load import Loaded
from core.results.tasks import BENCHMARKS, BenchmarkResult, TaskResult, keep_benchmarks, read_benchmarks
from core.spec.evaluate import EvalSpec
from core.stages.work import Work, kept


def benchmarks(work: Work, side: str) -> list[str]:
    """The stage that scores one model, in a list; none where no task was asked for.

    Args:
        side: `model`, or which of a pruning run's: `dense`, `pruned`, `recovered`.
    """
    return [_stage(side)] if work.spec.evaluate.tasks else []


def _stage(side: str) -> str:
    return "benchmark" if side == "model" else f"benchmark {side}"


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


def scores_of(work: Work, loaded: Loaded, side: str, key: str) -> dict[str, Any]:
    """Score one model; what is done is kept in `benchmarks.json` and, by weights, for other runs.

    Returns:
        {key: task -> metrics, `stderr`, `n` and how it was measured}; empty where no task was asked for.

    Raises:
        InputError: nothing could be scored, e.g. no prompt fits the context.
    """
    asked, recorder = work.spec.evaluate, work.recorder
    if not asked.tasks:
        return {}
    from core.evaluate.benchmarks import run_benchmarks

    recorder.stage(_stage(side))
    done: dict[str, TaskResult] = {}

    def tell(result: TaskResult) -> None:
        done[result.task] = result
        error = "" if result.stderr is None else f" ± {result.stderr:.4f}"
        known = ", known from before" if result.cached else ""
        said = f"{result.task}: {result.metric} {result.value:.4f}{error}, n = {result.n:,}{known}"
        recorder.message(said)
        recorder.metric(f"task.{side}.{result.task}", 0, result.value)
        keep_benchmarks(work.run_dir, side, BenchmarkResult(done))

    found = run_benchmarks(
        loaded.model,
        loaded.tokenizer,
        asked.tasks,
        limit=asked.limit,
        num_fewshot=asked.num_fewshot,
        benchmarks_dir=_mirror(asked),
        seed=work.spec.seed,
        cache_dir=cache_folder() / "scores",
        on_progress=lambda part, whole: recorder.progress(100 * part // whole, 100, "% of the tasks"),
        on_task=tell,
    )
    for reason in found.refused.values():
        recorder.message(f"Warning: not scored: {reason}")
    keep_benchmarks(work.run_dir, side, found)
    recorder.artifact(BENCHMARKS)
    return {key: found.summary()}


def scored_earlier(work: Work) -> dict[str, Any]:
    """What the run whose result is recovered scored of the dense model; this run keeps it too, as its own.

    Returns:
        {"tasks_before": task -> summary}; empty where that run scored nothing, or is gone.
    """
    source = Path(work.spec.model.source)
    dense = (kept(read_benchmarks, source) or {}).get("dense")
    if dense is None or not dense.tasks:
        return {}
    keep_benchmarks(work.run_dir, "dense", dense)
    return {"tasks_before": dense.summary()}


def _mirror(asked: EvalSpec) -> Path | None:
    return Path(asked.benchmarks_dir) if asked.benchmarks_dir else None
