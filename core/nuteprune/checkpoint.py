"""Where training can go on from: one safetensors file that is moved into place, never a pickle.

What is random is drawn from generators seeded with the run's seed and the step, and the order of the data
follows from the step, so the step stands for both.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import ArtifactError
from core.files import load_arrays, save_arrays
from core.recover.checkpoint import optimizer_tensors, restore_optimizer

STATE = "nuteprune.safetensors"
_WINDOWS = "windows.safetensors"
#: What the names in that file begin with.
_TENSORS, _OPTIMIZER = "tensors/", "optimizer/"


@dataclass
class State:
    """The numbers of a training that are no tensors.

    Attributes:
        step: steps done.
        multipliers: of the Lagrangian: lambda_1, lambda_2 and the pull they are in units of.
        began: the step at which stage 2 began, or None.
        skipped: steps left out because the loss was not finite; in_a_row: the last so many steps.
        level: the level of the latest snapshot; levels: of all of them.
        removed: group id -> units that go, once the plan is fixed.
    """

    step: int = 0
    multipliers: list[float] = field(default_factory=list)
    began: int | None = None
    skipped: int = 0
    in_a_row: int = 0
    level: int = 0
    levels: list[int] = field(default_factory=list)
    removed: dict[str, list[int]] = field(default_factory=dict)


def save(folder: Path, state: State, tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Replace the checkpoint in `folder`. Raises StorageError; the one before stays good then."""
    parts = {_TENSORS: tensors, _OPTIMIZER: optimizer_tensors(optimizer)}
    arrays = {part + name: _array(value) for part, found in parts.items() for name, value in found.items()}
    save_arrays(folder / STATE, arrays, {"state": json.dumps(asdict(state))})


def load(folder: Path, tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> State | None:
    """Fill `tensors` and `optimizer` with what was saved; None if there is no checkpoint.

    Raises:
        ArtifactError: the checkpoint is damaged or of another training; remove it to start over.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    arrays, metadata = load_arrays(path)
    try:
        raw = json.loads(metadata["state"])
        state = State(**{one.name: raw[one.name] for one in fields(State)})
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(torch.from_numpy(arrays[_TENSORS + name]))
        kept = {key: torch.from_numpy(array) for key, array in arrays.items() if key.startswith(_OPTIMIZER)}
        restore_optimizer(optimizer, {key.removeprefix(_OPTIMIZER): value for key, value in kept.items()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{path} is damaged or of another training ({error}); remove it to train from the start."
        ) from error
    return state


def save_windows(folder: Path, windows: Tensor) -> None:
    """Keep the windows, (windows, length), for those that train along. Raises StorageError."""
    save_arrays(folder / _WINDOWS, {"windows": _array(windows)}, {})


def load_windows(folder: Path) -> Tensor:
    """What `save_windows` kept. Raises ArtifactError."""
    arrays, _ = load_arrays(folder / _WINDOWS)
    return torch.from_numpy(arrays["windows"])


def _array(tensor: Tensor) -> NDArray[np.generic]:
    value = tensor.detach().cpu()
    array: NDArray[np.generic] = value.numpy()
    return np.ascontiguousarray(array)
