"""`scores.safetensors` and `sensitivity.json`: what every unit is worth, and what each layer costs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.files import load_arrays, read_json, reading, save_arrays, write_json

SCORES = "scores.safetensors"
SENSITIVITY = "sensitivity.json"

Scores = dict[str, dict[str, NDArray[np.float32]]]


@dataclass(frozen=True)
class Sensitivity:
    """`sensitivity.json`: perplexity when only one layer's units of one kind are pruned.

    `points` are {"layer", "kind", "ratio", "ppl"}; `window` and `tokens` say how it was measured.
    `ppl_stderr` of a point and `baseline_stderr` are standard errors of perplexities, `change_stderr` of the
    change from the baseline in nats, computed window by window; scans made before they were kept have none.
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
        criterion, group = key.split("/", 1)
        scores.setdefault(criterion, {})[group] = array
    return scores


def write_sensitivity(run_dir: Path, sensitivity: Sensitivity) -> None:
    """Write `sensitivity.json`. Raises StorageError."""
    write_json(run_dir / SENSITIVITY, asdict(sensitivity))


def read_sensitivity(run_dir: Path) -> Sensitivity:
    """Read `sensitivity.json`. Raises ArtifactError."""
    with reading(run_dir / SENSITIVITY):
        return Sensitivity(**read_json(run_dir / SENSITIVITY))
