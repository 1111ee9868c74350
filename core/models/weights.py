"""The weights of a saved model on disk: one file of safetensors, or several with an index."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor

from core.errors import ArtifactError

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
#: No file is larger.
SHARD = "5GB"


def write_weights(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write `model.safetensors`, or `model-00001-of-0000N.safetensors` and their index."""
    save_torch_state_dict(dict(weights), folder, max_shard_size=SHARD, metadata={"format": "pt"})


def read_weights(folder: Path, device: torch.device, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Every tensor in a folder's files by its name; None keeps the type that it has there.

    Raises:
        ArtifactError: one is missing or damaged.
    """
    tensors: dict[str, Tensor] = {}
    for path in _files(folder):
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                for name in file.keys():  # noqa: SIM118  (the handle is not a dict)
                    tensor = file.get_tensor(name)
                    rounded = dtype is not None and tensor.is_floating_point()
                    tensors[name] = tensor.to(dtype) if rounded else tensor
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{path} is missing or damaged ({error}); run the pruning again.") from error
    return tensors


def _files(folder: Path) -> list[Path]:
    """The files that the index names, or the only one."""
    index = folder / INDEX
    if not index.is_file():
        return [folder / WEIGHTS]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{index} is damaged ({error}); run the pruning again.") from error
    return [folder / str(name) for name in sorted(names)]
