"""What benchmarking through the workbench costs against calling lm-eval directly, on the same model."""

from __future__ import annotations

import time
from typing import Any

from tests.bench.figure import Figure

TASKS, LIMIT, ROUNDS = ("bundled_capitals", "bundled_next_sentence"), 24, 2


def run() -> list[Figure]:
    """Both in turn, the quicker of two rounds each, so that a busy moment does not decide."""
    from core.evaluate.benchmarks import run_benchmarks
    from core.evaluate.task_bundled import bundled_spec
    from core.models import load as models

    loaded = models.load("demo", device="cpu")
    for name in TASKS:
        bundled_spec(name)
    ours, theirs = [], []
    _directly(loaded, 1)
    for _ in range(ROUNDS):
        theirs.append(_seconds(lambda: _directly(loaded, LIMIT)))
        ours.append(
            _seconds(lambda: run_benchmarks(loaded.model, loaded.tokenizer, TASKS, limit=LIMIT, batch_size=8))
        )
    a, b = min(ours), min(theirs)
    parts = f"{a:.1f} s / {b:.1f} s for {len(TASKS)} tasks of {LIMIT} questions"
    return [Figure("benchmarks through the workbench / lm-eval directly", a / b, "at most", 1.05, "x", parts)]


def _directly(loaded: Any, limit: int) -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from core.evaluate.task_bundled import bundled_spec

    lm = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=8)
    tasks = [bundled_spec(name)[0] for name in TASKS]
    manager = TaskManager(include_defaults=False)
    lm_eval.simple_evaluate(model=lm, tasks=tasks, limit=limit, task_manager=manager)


def _seconds(work) -> float:  # type: ignore[no-untyped-def]
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
