"""Names and readers of everything in a run directory. Nothing here needs torch.

Files that are rewritten are written beside and moved into place, so a reader never sees half a file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from core.errors import ArtifactError, SpecError
from core.errors import storage_error as storage_error
from core.graph.records import Graph
from core.plan import PruningPlan
from core.spec import RunSpec

SPEC = "spec.json"
STATUS = "status.json"
EVENTS = "events.jsonl"
LOG = "log.txt"
GROUPS = "groups.json"
SIMILARITY = "similarity.safetensors"
SCORES = "scores.safetensors"
SENSITIVITY = "sensitivity.json"
MASKS = "masks.safetensors"
PLAN = "plan.json"
WIDTHS = "widths.json"
METRICS = "metrics.json"
PERPLEXITY = "perplexity.json"
SAMPLES = "samples.json"
BENCHMARKS = "benchmarks.json"
EFFICIENCY = "efficiency.json"
CHECKPOINT = "checkpoint"
RECONSTRUCTED = "reconstructed.safetensors"
RECONSTRUCTION = "reconstruction.json"
MODEL = "model"
#: An empty file with this name asks the worker to stop after the step it is in.
STOP = "stop"

STATES = ("queued", "starting", "running", "stopping", "finished", "failed", "stopped", "crashed")
ENDED = ("finished", "failed", "stopped", "crashed")


@dataclass
class Status:
    """`status.json`: where a run stands.

    Attributes:
        state: one of `STATES`.
        stage: the stage being worked on; stages: all of them, in order.
        progress: share of the stage done, in [0, 1]; message: the same for people.
        pid, pid_started: the worker and when it started (seconds since the epoch): both name a process.
        heartbeat: when the worker last wrote, seconds since the epoch.
        host: the machine the worker runs on; a pid means nothing on another one.
        created, started, ended: seconds since the epoch; started is when it was last started or resumed.
        before_s: seconds at work before it was last resumed.
        eta_s: seconds left in this stage, None if unknown.
        error: {"type", "message", "fix"} of a failed run; a crashed one has its last `log` lines too.
    """

    state: str = "queued"
    stage: str = ""
    stages: list[str] = field(default_factory=list)
    progress: float = 0.0
    message: str = ""
    pid: int | None = None
    pid_started: float | None = None
    host: str = ""
    heartbeat: float = 0.0
    created: float = 0.0
    started: float | None = None
    ended: float | None = None
    before_s: float = 0.0
    eta_s: float | None = None
    error: dict[str, str] | None = None

    def worked_s(self, now: float) -> float | None:
        """Seconds at work until it ended, or until now; pauses are left out. None before it has started."""
        end = self.ended if self.state in ENDED else now
        if self.started is None or end is None:
            return self.before_s or None
        return self.before_s + end - self.started


@dataclass(frozen=True)
class Similarity:
    """`similarity.safetensors`: how differently two heads attend.

    Attributes:
        divergence: mean Jensen-Shannon distance, (layers, heads, heads), float32, natural logarithm.
        layers: the layer each first index stands for.
        tokens: how many query positions were averaged.
    """

    divergence: NDArray[np.float32]
    layers: list[int]
    tokens: int
    text: str


@dataclass(frozen=True)
class Sensitivity:
    """`sensitivity.json`: perplexity when only one layer's units of one kind are pruned.

    `points` are {"layer", "kind", "ratio", "ppl"}; `window` and `tokens` say how it was measured.
    `ppl_stderr` of a point and `baseline_stderr` are standard errors of perplexities, `change_stderr` of the
    change from the baseline in nats, found window by window; scans made before they were kept have none.
    """

    baseline_ppl: float
    text: str
    window: int
    tokens: int
    criterion: str
    points: list[dict[str, Any]]
    seconds: float = 0.0
    baseline_stderr: float | None = None

    @property
    def windows(self) -> int:
        """How many windows every perplexity was measured on."""
        return self.tokens // self.window


def write_json(path: Path, value: Any) -> None:
    """Write beside, then move into place. Raises StorageError with the cause (full disk, no permission)."""
    write_text(path, json.dumps(value, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write beside, then move into place. Raises StorageError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):  # the folder itself may be missing
            beside.unlink()
        raise storage_error(path, error) from error


def read_json(path: Path) -> Any:
    """Raises ArtifactError if the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path.name} is not there yet.") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); run the analysis again.") from error


def write_status(run_dir: Path, status: Status) -> None:
    """Replace `status.json`."""
    write_json(run_dir / STATUS, asdict(status))


def read_status(run_dir: Path) -> Status:
    """Raises ArtifactError."""
    raw = read_json(run_dir / STATUS)
    try:
        status = Status(**raw)
        if status.state not in STATES:
            raise ValueError(f"there is no state {status.state!r}")
        for number in (status.heartbeat, status.created, status.progress):
            float(number)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{run_dir / STATUS} is damaged ({error}).") from error
    return status


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
    try:
        return PruningPlan.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{PLAN} is not there yet.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); run it again.") from error


def read_graph(run_dir: Path) -> Graph:
    """`groups.json`. Raises ArtifactError."""
    path = run_dir / GROUPS
    try:
        return Graph.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{GROUPS} is not there yet.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); run the analysis again.") from error


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: dict[str, str]) -> None:
    """Write arrays beside, then move into place. Raises StorageError; what was there before stays then."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(arrays), beside, metadata=metadata)
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # the folder itself may be missing
            beside.unlink()
        cause = error if isinstance(error, OSError) else OSError(str(error))
        raise storage_error(path, cause) from error


def load_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Arrays and metadata that `save_arrays` wrote. Raises ArtifactError."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
        return load_file(path), metadata
    except FileNotFoundError as error:
        raise ArtifactError(f"{path.name} is not there yet.") from error
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); run the analysis again.") from error


def write_similarity(run_dir: Path, similarity: Similarity) -> None:
    """Write `similarity.safetensors`. Raises StorageError."""
    facts = {"layers": similarity.layers, "tokens": similarity.tokens, "text": similarity.text}
    save_arrays(run_dir / SIMILARITY, {"divergence": similarity.divergence}, {"facts": json.dumps(facts)})


def read_similarity(run_dir: Path) -> Similarity:
    """Raises ArtifactError."""
    arrays, metadata = load_arrays(run_dir / SIMILARITY)
    try:
        facts = json.loads(metadata["facts"])
        return Similarity(
            arrays["divergence"], list(facts["layers"]), int(facts["tokens"]), str(facts["text"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{run_dir / SIMILARITY} is damaged ({error}); run the analysis again."
        ) from error


Scores = dict[str, dict[str, NDArray[np.float32]]]


def write_scores(run_dir: Path, scores: Scores) -> None:
    """Write `scores.safetensors`: criterion -> group id -> (units,). Raises StorageError."""
    flat = {f"{criterion}/{group}": array for criterion, by in scores.items() for group, array in by.items()}
    save_arrays(run_dir / SCORES, flat, {"criteria": json.dumps(list(scores))})


def read_scores(run_dir: Path) -> Scores:
    """criterion -> group id -> (units,). Raises ArtifactError."""
    arrays, metadata = load_arrays(run_dir / SCORES)
    try:
        scores: Scores = {name: {} for name in json.loads(metadata["criteria"])}
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{run_dir / SCORES} is damaged ({error}); run the analysis again.") from error
    for key, array in sorted(arrays.items()):
        criterion, group = key.split("/", 1)
        scores.setdefault(criterion, {})[group] = array
    return scores


def write_sensitivity(run_dir: Path, sensitivity: Sensitivity) -> None:
    """Write `sensitivity.json`. Raises StorageError."""
    write_json(run_dir / SENSITIVITY, asdict(sensitivity))


def read_sensitivity(run_dir: Path) -> Sensitivity:
    """Raises ArtifactError."""
    try:
        return Sensitivity(**read_json(run_dir / SENSITIVITY))
    except TypeError as error:
        raise ArtifactError(
            f"{run_dir / SENSITIVITY} is damaged ({error}); run the analysis again."
        ) from error
