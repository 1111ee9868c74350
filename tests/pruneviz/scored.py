"""Benchmark results as a run leaves them. No torch, no lm-eval."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.results.tasks import BENCHMARKS, Sample, TaskResult


def task(name: str, rights: str, *, keep: bool = True, **changes: Any) -> TaskResult:
    """A result with one question per letter of `rights`: `1` is right, `0` wrong."""
    samples = tuple(
        Sample(f"{name}-{i}", f"Question {i}?", "yes", "yes" if letter == "1" else "no", letter == "1")
        for i, letter in enumerate(rights)
    )
    n = len(rights)
    mean = rights.count("1") / n
    values: dict[str, Any] = {
        "task": name, "lm_eval_task": name, "metrics": {"acc": mean},
        "stderrs": {"acc": (mean * (1 - mean) / (n - 1)) ** 0.5}, "metric": "acc", "n": n, "version": "1.0",
        "num_fewshot": 0, "limit": n, "template": "none", "source": "folder", "data": {"questions": "q"},
        "samples": samples if keep else (),
    }  # fmt: skip
    return TaskResult(**{**values, **changes})


def write_benchmarks(run_dir: Path, **sides: list[TaskResult]) -> None:
    """`benchmarks.json` with these sides."""
    found = {side: {"tasks": {one.task: asdict(one) for one in tasks}} for side, tasks in sides.items()}
    (run_dir / BENCHMARKS).write_text(json.dumps(found))
