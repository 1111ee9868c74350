"""Training text that the dense model writes itself, before anything is cut, in the place of some of the data.

A text has hands that wrote it, and who trains on it learns them, too. What the model writes is its own
distribution. It is written in parts, each with a seed of its own and kept at once, so that a run that was
stopped goes on.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import ArtifactError
from core.files import load_arrays, save_arrays
from core.models.load import load_tokenizer
from core.models.self_text import write as write_windows
from core.recover.examples import Example, TrainingData, training_data
from core.recover.train import steps_of
from core.runs.artifacts import CHECKPOINT
from core.spec.recover import RecoverSpec
from core.spec.run import RunSpec

#: Below the run's checkpoints.
FOLDER = "written"
#: Sequences that are written at most, and in a part.
MOST, _OF_PART = 4096, 16


def writes(spec: RunSpec) -> bool:
    """Whether the dense model writes some of what is trained on."""
    return spec.recover.method != "none" and spec.recover.self_written > 0


def shares(recipe: RecoverSpec, count: int) -> tuple[int, int]:
    """How many sequences of the data and how many written ones are trained on; `count` are at hand."""
    used = min(count, steps_of(recipe, count) * recipe.batch)
    written = min(round(used * recipe.self_written), MOST)
    return used - written, written


def missing(spec: RunSpec, run_dir: Path) -> list[int]:
    """The parts that are not kept yet. Raises DataError where there is too little data."""
    numbers = range(-(-_wanted(spec) // _OF_PART))
    return [number for number in numbers if not _kept(run_dir, number)]


def write(
    spec: RunSpec,
    run_dir: Path,
    model: Any,
    parts: Sequence[int],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Let the dense model write these parts, each kept as it is done.

    Args:
        on_progress: told (tokens written, tokens in all).

    Raises:
        DataError: the model's logits are not finite.
    """
    wanted, length = _wanted(spec), spec.recover.length
    for number in parts:
        done, size = number * _OF_PART, min(_OF_PART, wanted - number * _OF_PART)

        def told(tokens: int, _: int, done: int = done) -> None:
            on_progress(done * length + tokens, wanted * length)

        seed = spec.seed * 1_000_003 + number
        windows = write_windows(model, samples=size, length=length, seed=seed, on_progress=told)
        save_arrays(_path(run_dir, number), {"windows": windows.numpy()}, {})


def _wanted(spec: RunSpec) -> int:
    tokenizer = load_tokenizer(spec.model.source, spec.model.trust_remote_code)
    _, data = training_data(tokenizer, spec.recover, spec.seed, spec.data_dir)
    return shares(spec.recover, len(data.train))[1]


def mixed(spec: RunSpec, run_dir: Path, data: TrainingData) -> TrainingData:
    """The data with written sequences in the place of some, chosen by the seed; what is kept apart stays.

    Raises:
        ArtifactError: what was written is gone.
    """
    if not writes(spec):
        return data
    ours, theirs = shares(spec.recover, len(data.train))
    parts = (_read(run_dir, number) for number in range(-(-theirs // _OF_PART)))
    written = [Example(row, row) for part in parts for row in part]
    chosen = sorted(random.Random(spec.seed).sample(range(len(data.train)), ours))
    return replace(data, train=[*(data.train[row] for row in chosen), *written])


def forget(run_dir: Path) -> None:
    """Remove what was written; the seed writes it again."""
    shutil.rmtree(run_dir / CHECKPOINT / FOLDER, ignore_errors=True)


def _path(run_dir: Path, number: int) -> Path:
    return run_dir / CHECKPOINT / FOLDER / f"part-{number:03d}.safetensors"


def _read(run_dir: Path, number: int) -> list[list[int]]:
    """Token ids of a part, a row per sequence. Raises ArtifactError."""
    rows: list[list[int]] = load_arrays(_path(run_dir, number))[0]["windows"].tolist()
    return rows


def _kept(run_dir: Path, number: int) -> bool:
    try:
        return bool(_read(run_dir, number))
    except ArtifactError:
        return False
