"""What the dense model expects of every text that is measured, kept while a run works to compare with it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from core.errors import ArtifactError
from core.evaluate.perplexity import ids_of, vocabulary
from core.evaluate.reference import Comparing, Keeping, Listener, Reference
from core.results.perplexity import Perplexity
from core.runs.artifacts import CHECKPOINT

#: Below the run's checkpoints.
FOLDER = "references"
#: The side that the others are compared with.
DENSE = "dense"


def path_of(run_dir: Path, windows: Tensor) -> Path:
    """Where it is kept what the dense model expects of these windows."""
    return run_dir / CHECKPOINT / FOLDER / f"{ids_of(windows)}.safetensors"


def listener(run_dir: Path, model: Any, windows: Tensor, side: str) -> Keeping | Comparing | None:
    """Who listens while a side reads these windows; None where the dense model did not read them."""
    if side == DENSE:
        return Keeping(len(windows), windows.shape[1], vocabulary(model))
    try:
        return Comparing(Reference.read(path_of(run_dir, windows)))
    except ArtifactError:
        return None


def heard(measured: Perplexity, listened: Listener | None, run_dir: Path, windows: Tensor) -> Perplexity:
    """What was measured, with how far the model is from the dense one; of that itself it is kept instead."""
    if isinstance(listened, Keeping):
        listened.reference().save(path_of(run_dir, windows))
    if isinstance(listened, Comparing):
        return replace(measured, kl=listened.mean(), kls=listened.by_window())
    return measured


def forget(run_dir: Path) -> None:
    """Remove what was kept to compare with."""
    shutil.rmtree(run_dir / CHECKPOINT / FOLDER, ignore_errors=True)
