"""`scores.safetensors`: the importance of every unit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.files import load_arrays, read_facts, reading, save_arrays
from core.spec.past import FORMAT, today

SCORES = "scores.safetensors"
Scores = dict[str, dict[str, NDArray[np.float32]]]
#: The scope that ranks by scores of its own, made of those of channels, see `core.criteria.flap`.
AL_AM = "al_am"


def ranked_by(criterion: str, scope: str) -> str:
    """The name of the scores that a scope ranks by: the criterion's, or those that AL-AM makes of them."""
    return f"{criterion}.{AL_AM}" if scope == AL_AM else criterion


def unit_scores(scores: Scores) -> Scores:
    """The scores of criteria alone, without what AL-AM makes of them."""
    return {name: by for name, by in scores.items() if not name.endswith(f".{AL_AM}")}


def write_scores(run_dir: Path, scores: Scores) -> None:
    """Write `scores.safetensors`: criterion -> group id -> (units,). Raises StorageError."""
    flat = {f"{criterion}/{group}": array for criterion, by in scores.items() for group, array in by.items()}
    facts = {"criteria": json.dumps(list(unit_scores(scores))), "format": str(FORMAT)}
    save_arrays(run_dir / SCORES, flat, facts)


def read_scores(run_dir: Path) -> Scores:
    """Read `scores.safetensors`: criterion -> group id -> (units,). Raises ArtifactError."""
    return unit_scores(read_all_scores(run_dir))


def read_all_scores(run_dir: Path) -> Scores:
    """As `read_scores`, with what AL-AM makes of them, by the names of `ranked_by`.

    Criteria have today's names, see `core.spec.past`; release 0.1 did not write a format.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    arrays, metadata = load_arrays(run_dir / SCORES)
    with reading(run_dir / SCORES):
        written = int(metadata.get("format", "1"))
        named = read_facts(metadata["criteria"], list[str])
        scores: Scores = {_today(name, written): {} for name in named}
        for key, array in sorted(arrays.items()):
            if array.ndim != 1:
                raise ValueError(f"{key} must have one score per unit, got {array.ndim} dimensions")
            criterion, group = key.split("/", 1)
            scores.setdefault(_today(criterion, written), {})[group] = array
        return scores


def _today(criterion: str, written: int) -> str:
    return today("explore.criteria", criterion, written)
