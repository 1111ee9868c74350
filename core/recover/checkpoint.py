"""Where a training can go on from: one safetensors file with JSON in it, moved into place, never a pickle.

No random state is in it: whatever is drawn follows from the seed and the number of the step (see `loop`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from core.errors import ArtifactError
from core.files import load_arrays, save_arrays

#: What the names in the file begin with, and under which name its metadata holds the JSON.
_TENSORS, _OPTIMIZER, _FACTS = "tensors/", "optimizer/", "state"


def save(path: Path, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], optimizer: Optimizer) -> None:
    """Replace the checkpoint. Raises StorageError; the one before stays good then.

    Args:
        facts: anything that JSON can hold.
    """
    arrays = {_TENSORS + name: _array(tensor) for name, tensor in tensors.items()}
    for number, state in optimizer.state_dict()["state"].items():
        arrays |= {f"{_OPTIMIZER}{number}/{key}": _array(torch.as_tensor(v)) for key, v in state.items()}
    save_arrays(path, arrays, {_FACTS: json.dumps(facts)})


def load(
    path: Path, tensors: Mapping[str, Tensor], optimizer: Optimizer, restore: Callable[[dict[str, Any]], None]
) -> bool:
    """Fill `tensors` and `optimizer` with what was saved, and give the facts to `restore`.

    Returns:
        Whether there is a checkpoint.

    Raises:
        ArtifactError: it is damaged or of another training; remove it to start over.
    """
    if not path.is_file():
        return False
    arrays, metadata = load_arrays(path)
    try:
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(torch.from_numpy(arrays[_TENSORS + name]))
        state: dict[int, dict[str, Tensor]] = {}
        for key, array in arrays.items():
            if key.startswith(_OPTIMIZER):
                number, _, name = key.removeprefix(_OPTIMIZER).partition("/")
                state.setdefault(int(number), {})[name] = torch.from_numpy(array)
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        restore(json.loads(metadata[_FACTS]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{path} is damaged or of another training ({error}); remove it to train from the start."
        ) from error
    return True


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())
