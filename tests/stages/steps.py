"""Run a pipeline in this process, and what is compared of its outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.files import read_json
from core.runs import launch
from core.runs.artifacts import EVENTS, METRICS, SAMPLES, read_plan
from core.runs.events import EventReader
from core.runs.status import Status, write_status
from core.spec.run import RunSpec
from core.stages.worker import execute

VERBS = ["load", "graph", "baseline", "capture", "score", "plan", "surgery", "evaluate", "export"]


def done(folder: Path, spec: RunSpec) -> Path:
    run_dir = launch.create(folder, spec, mine=True)
    execute(run_dir)
    return run_dir


def again(run_dir: Path) -> None:
    """Resume in this process."""
    write_status(run_dir, Status(created=1.0))
    execute(run_dir)


def outcome(run_dir: Path) -> tuple[Any, Any, Any]:
    """Everything a run decides and measures; how long that took, and how much memory, is no result."""
    metrics = read_json(run_dir / METRICS)
    for name in ("seconds", "run_memory_gib"):
        metrics.pop(name)
    metrics.pop("run_memory_predicted_gib", None)  # nothing is foretold of weights that rest elsewhere
    samples = [
        (one["prompt"], one["dense"]["text"], one["pruned"]["text"]) for one in read_json(run_dir / SAMPLES)
    ]
    return read_plan(run_dir), metrics, samples


def staged(run_dir: Path) -> list[str]:
    return [event.stage for event in EventReader(run_dir / EVENTS).read() if event.type == "stage"]
