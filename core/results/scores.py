"""`scores.safetensors` and `sensitivity.json`: every unit's importance, and what pruning a layer costs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, PositiveInt

from core.files import load_arrays, read_record, reading, save_arrays, write_json

SCORES = "scores.safetensors"
SENSITIVITY = "sensitivity.json"

Scores = dict[str, dict[str, NDArray[np.float32]]]


def _checked(point: dict[str, Any]) -> dict[str, Any]:
    whole = ["layer", *(["unit"] if point.get("kind") == "head" else [])]
    numbers = ("ratio", "ppl", "ppl_stderr", "change_stderr", "target")
    wrong = [key for key in whole if type(point.get(key)) is not int]
    wrong += [key for key in ("kind",) if not isinstance(point.get(key), str)]
    wrong += [key for key in ("ratio", "ppl") if key not in point]
    wrong += [key for key in numbers if not isinstance(point.get(key), (int, float, type(None)))]
    if wrong:
        raise ValueError(f"{wrong[0]} of a point is missing or of the wrong type")
    return point


@dataclass(frozen=True)
class Sensitivity:
    """`sensitivity.json`: perplexity when only one layer's units of one kind are pruned.

    `points` are {"layer", "kind", "ratio", "ppl"}; `window` and `tokens` say how it was measured.
    `ppl_stderr` of a point and `baseline_stderr` are standard errors of perplexities, `change_stderr` of the
    change from the baseline in nats, taken window by window; older scans have none.
    """

    baseline_ppl: float
    text: str
    window: PositiveInt
    tokens: int
    criterion: str
    points: list[Annotated[dict[str, Any], AfterValidator(_checked)]]
    seconds: float = 0.0
    baseline_stderr: float | None = None

    @property
    def windows(self) -> int:
        """How many windows every perplexity was measured on."""
        return self.tokens // self.window


def write_scores(run_dir: Path, scores: Scores) -> None:
    """Write `scores.safetensors`: criterion -> group id -> (units,). Raises StorageError."""
    flat = {f"{criterion}/{group}": array for criterion, by in scores.items() for group, array in by.items()}
    save_arrays(run_dir / SCORES, flat, {"criteria": json.dumps(list(scores))})


def read_scores(run_dir: Path) -> Scores:
    """Read `scores.safetensors`: criterion -> group id -> (units,). Raises ArtifactError."""
    arrays, metadata = load_arrays(run_dir / SCORES)
    with reading(run_dir / SCORES):
        scores: Scores = {name: {} for name in json.loads(metadata["criteria"])}
        for key, array in sorted(arrays.items()):
            if array.ndim != 1:
                raise ValueError(f"{key} must have one score per unit, got {array.ndim} dimensions")
            criterion, group = key.split("/", 1)
            scores.setdefault(criterion, {})[group] = array
        return scores


def write_sensitivity(run_dir: Path, sensitivity: Sensitivity) -> None:
    """Write `sensitivity.json`. Raises StorageError."""
    write_json(run_dir / SENSITIVITY, asdict(sensitivity))


def read_sensitivity(run_dir: Path) -> Sensitivity:
    """Read `sensitivity.json`. Raises ArtifactError."""
    return read_record(run_dir / SENSITIVITY, Sensitivity)
