"""Names of the files in a run directory, and readers of those that belong to no result of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.files import json_text, read_record, reading
from core.graph.records import Graph
from core.plan.records import PruningPlan
from core.spec.run import RunSpec

SPEC = "spec.json"
EVENTS = "events.jsonl"
LOG = "log.txt"
GROUPS = "groups.json"
PLAN = "plan.json"
METRICS = "metrics.json"
SAMPLES = "samples.json"
CHECKPOINT = "checkpoint"
RECONSTRUCTED = "reconstructed.safetensors"
RECONSTRUCTION = "reconstruction.json"
MODEL = "model"
#: In `MODEL`, where its `config.json` is no longer that of the dense model.
BASE_CONFIG = "base_config.json"
#: An empty file with this name asks the worker to stop after the step it is in.
STOP = "stop"
#: What an executor of a cluster keeps of its jobs, in a folder each; the parts of a run that is split.
JOBS = "jobs"
PARTS = "parts"
#: How the names in `metrics.json` begin that hold numbers; `TEXTS` are the exceptions.
NUMBERS = (
    "params",
    "macs",
    "kv_bytes",
    "ppl",
    "kl",
    "latency",
    "tokens_per_second",
    "memory",
    "sparsity",
    "seconds",
)
TEXTS = ("ppl_text", "ppl_sha256", "ppl_protocol", "calibration_text", "base")


def read_spec(run_dir: Path) -> RunSpec:
    """`spec.json`. Raises ArtifactError."""
    with reading(run_dir / SPEC, remedy=""):
        return RunSpec.from_run(json_text(run_dir / SPEC))


def read_plan(run_dir: Path) -> PruningPlan:
    """`plan.json`. Raises ArtifactError."""
    with reading(run_dir / PLAN, "run it again"):
        return PruningPlan.from_json(json_text(run_dir / PLAN))


def read_graph(run_dir: Path) -> Graph:
    """`groups.json`. Raises ArtifactError."""
    with reading(run_dir / GROUPS):
        return Graph.from_json(json_text(run_dir / GROUPS))


def read_metrics(run_dir: Path) -> dict[str, Any]:
    """`metrics.json`: quantity -> what was measured, None where it was not. Raises ArtifactError."""
    path = run_dir / METRICS
    metrics = read_record(path, dict[str, Any], "run it again")
    with reading(path, "run it again"):
        for name, value in metrics.items():
            if value is not None:
                _check_metric(name, value)
    return metrics


def _check_metric(name: str, value: Any) -> None:
    if name in TEXTS:
        right, wanted = isinstance(value, str), "a text"
    elif name == "perplexities":
        right, wanted = (
            isinstance(value, list) and all(isinstance(row, dict) for row in value),
            "a list of objects",
        )
        for field, part in (item for row in value if right for item in row.items()):
            if part is not None:
                _check_metric(field, part)
    elif name.startswith("tasks"):
        right = isinstance(value, dict) and all(isinstance(task, dict) for task in value.values())
        wanted = "an object of objects"
    elif name.startswith(NUMBERS):
        right, wanted = isinstance(value, (int, float)) and not isinstance(value, bool), "a number"
        if right and name.startswith("ppl") and "stderr" not in name:
            # What overflows is NaN or infinite, which is an answer too.
            right, wanted = not value <= 0, "above 0"
    else:
        return
    if not right:
        raise ValueError(f"{name} must be {wanted}")


def read_samples(run_dir: Path) -> list[dict[str, Any]]:
    """`samples.json`: {"prompt", side: {"text", "tokens_per_second"}} a prompt. Raises ArtifactError."""
    path = run_dir / SAMPLES
    samples = read_record(path, list[dict[str, Any]], "run it again")
    with reading(path, "run it again"):
        for number, sample in enumerate(samples):
            if not isinstance(sample["prompt"], str):
                raise ValueError(f"prompt {number} must be a text")
            if not all(isinstance(answer, dict) for side, answer in sample.items() if side != "prompt"):
                raise ValueError(f"answers to prompt {number} must be objects")
    return samples
