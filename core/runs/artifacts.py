"""Names of the files in a run directory, and readers of its spec, plan and graph."""

from __future__ import annotations

from pathlib import Path

from core.errors import ArtifactError, SpecError
from core.files import reading
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

#: An empty file with this name asks the worker to stop after the step it is in.
STOP = "stop"


def read_spec(run_dir: Path) -> RunSpec:
    """`spec.json`. Raises ArtifactError."""
    path = run_dir / SPEC
    try:
        return RunSpec.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{SPEC} is not there.") from error
    except (OSError, ValueError, SpecError) as error:
        raise ArtifactError(f"{path} is damaged ({error}).") from error


def read_plan(run_dir: Path) -> PruningPlan:
    """`plan.json`. Raises ArtifactError."""
    path = run_dir / PLAN
    with reading(path, "run it again"):
        return PruningPlan.from_json(path.read_text(encoding="utf-8"))


def read_graph(run_dir: Path) -> Graph:
    """`groups.json`. Raises ArtifactError."""
    path = run_dir / GROUPS
    with reading(path):
        return Graph.from_json(path.read_text(encoding="utf-8"))
