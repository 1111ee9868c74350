"""The masks during training, in a file that training rewrites as it goes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.files import load_arrays, read_facts, reading, save_arrays

MASKS = "masks.safetensors"


@dataclass(frozen=True)
class MaskState:
    """`masks.safetensors`: the masks during training.

    Attributes:
        step: the steps done so far; steps: all steps.
        factors: unit kind -> factor of every unit in [0, 1], 0 = gone, (layers, units), float32; NaN where a
            layer has fewer units, or none in scope. Residual channels run through all layers: (1, channels).
        stays: the same shapes, True where the unit would stay if the model were cut now.
    """

    step: int
    steps: int
    factors: dict[str, NDArray[np.float32]]
    stays: dict[str, NDArray[np.bool_]]


def write_masks(run_dir: Path, state: MaskState) -> None:
    """Write `masks.safetensors`. Raises StorageError."""
    arrays = {f"factors/{kind}": array for kind, array in state.factors.items()}
    stays = {f"stays/{kind}": array for kind, array in state.stays.items()}
    facts = json.dumps({"step": state.step, "steps": state.steps})
    save_arrays(run_dir / MASKS, {**arrays, **stays}, {"facts": facts})


def read_masks(run_dir: Path) -> MaskState:
    """Read `masks.safetensors`. Raises ArtifactError."""
    arrays, metadata = load_arrays(run_dir / MASKS)
    parts: dict[str, dict[str, NDArray[Any]]] = {"factors": {}, "stays": {}}
    with reading(run_dir / MASKS, "training writes it again"):
        facts = read_facts(metadata["facts"], dict[str, int])
        for key, array in sorted(arrays.items()):
            if array.ndim != 2:
                raise ValueError(f"{key} must be (layers, units), got {array.ndim} dimensions")
            part, _, kind = key.partition("/")
            parts[part][kind] = array
        return MaskState(facts["step"], facts["steps"], parts["factors"], parts["stays"])
