"""Where training can go on from: safetensors and JSON, whole or not there at all, never a pickle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.errors import ArtifactError
from core.files import read_json, write_json
from core.models.saved import all_or_nothing

#: transformers' Trainer looks for this name to find out at which step to go on.
STATE = "trainer_state.json"
_TENSORS, _FACTS = "tensors.safetensors", "facts.json"

Tensors = dict[str, Tensor]


def save(
    folder: Path, parts: dict[str, Tensors], trainer_state: dict[str, Any], facts: dict[str, Any]
) -> None:
    """Write a checkpoint; `folder` holds the old one or the new one, never half of one.

    Args:
        parts: sets of named tensors, by name.
        trainer_state: as Trainer reads it back; facts: anything JSON.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    flat = {
        f"{part}/{name}": value.detach().contiguous()
        for part, tensors in parts.items()
        for name, value in tensors.items()
    }
    with all_or_nothing(folder, sum(one.numel() * one.element_size() for one in flat.values())) as beside:
        write_json(beside / STATE, trainer_state)
        write_json(beside / _FACTS, facts)
        save_file(flat, beside / _TENSORS)


def read_facts(folder: Path) -> dict[str, Any] | None:
    """The facts of a checkpoint that is whole; None if there is none."""
    try:
        found = read_json(folder / _FACTS)
    except ArtifactError:
        return None
    whole = isinstance(found, dict) and (folder / _TENSORS).is_file() and (folder / STATE).is_file()
    return found if whole else None


def read_parts(folder: Path) -> dict[str, Tensors]:
    """The tensors of a checkpoint, by set and name. Raises ArtifactError."""
    try:
        flat = load_file(folder / _TENSORS)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{folder} is damaged ({error}); remove it to train from the start.") from error
    parts: dict[str, Tensors] = {}
    for key, value in flat.items():
        part, _, name = key.partition("/")
        parts.setdefault(part, {})[name] = value
    return parts


def optimizer_tensors(optimizer: Any) -> Tensors:
    """What an optimizer remembers of every parameter, flat."""
    return {
        f"{number}/{key}": torch.as_tensor(value)
        for number, one in optimizer.state_dict()["state"].items()
        for key, value in one.items()
    }


def restore_optimizer(optimizer: Any, tensors: Tensors) -> None:
    """Give an optimizer back what `optimizer_tensors` read from one over the same parameters."""
    state: dict[int, Tensors] = {}
    for key, value in tensors.items():
        number, _, name = key.partition("/")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def random_states() -> Tensors:
    """Where torch's generators stand, on every device there is."""
    return {name: get() for name, get, _ in _generators()}


def restore_random(states: Tensors) -> None:
    """Set torch's generators to where they stood."""
    for name, _, put in _generators():
        if name in states:
            put(states[name])


def _generators() -> Iterator[tuple[str, Any, Any]]:
    yield "cpu", torch.get_rng_state, torch.set_rng_state
    if torch.cuda.is_available():
        yield "cuda", torch.cuda.get_rng_state, torch.cuda.set_rng_state
    if torch.backends.mps.is_available():
        yield "mps", torch.mps.get_rng_state, torch.mps.set_rng_state
