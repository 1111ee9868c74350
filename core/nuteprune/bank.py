"""The teachers: snapshots of the student on the CPU and on disk, one per level of sparsity."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch

from core.errors import ArtifactError
from core.files import load_arrays, save_arrays
from core.nuteprune.twin import Snapshot

_FACTORS = "factors"


class Bank:
    """Snapshots by level (see `schedule`). Each is written to disk once, before a checkpoint that names it.

    Args:
        folder: where they are kept; made when the first is written.
        writes: False in a process that trains along: it reads what another has written.
    """

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self._folder, self._writes = folder, writes
        self._snapshots: dict[int, Snapshot] = {}

    @property
    def levels(self) -> list[int]:
        """The levels there are, in the order in which they were taken."""
        return list(self._snapshots)

    def __getitem__(self, level: int) -> Snapshot:
        return self._snapshots[level]

    def add(self, level: int, snapshot: Snapshot) -> None:
        """Keep a snapshot. Raises StorageError."""
        if self._writes:
            arrays = {_FACTORS: snapshot.factors.numpy()}
            arrays |= {f"updates/{name}": value.float().numpy() for name, value in snapshot.updates.items()}
            save_arrays(self._path(level), arrays, {"facts": json.dumps({"sparsity": snapshot.sparsity})})
        self._snapshots[level] = snapshot

    def restore(self, levels: Iterable[int]) -> None:
        """Read the snapshots of these levels. Raises ArtifactError if one is missing or damaged."""
        self._snapshots = {level: self._read(level) for level in levels}

    def _read(self, level: int) -> Snapshot:
        arrays, metadata = load_arrays(self._path(level))
        try:
            sparsity = float(json.loads(metadata["facts"])["sparsity"])
            factors = torch.from_numpy(arrays.pop(_FACTORS))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{self._path(level)} is damaged ({error}); train again.") from error
        names = {key: key.removeprefix("updates/") for key in arrays}
        return Snapshot(factors, {names[key]: torch.from_numpy(arrays[key]) for key in arrays}, sparsity)

    def _path(self, level: int) -> Path:
        return self._folder / f"teacher-{level:04d}.safetensors"
