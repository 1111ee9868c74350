"""`scores.safetensors`: the importance of every unit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.files import load_arrays, reading, save_arrays

SCORES = "scores.safetensors"
Scores = dict[str, dict[str, NDArray[np.float32]]]


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
