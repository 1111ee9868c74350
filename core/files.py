"""JSON, text and arrays on disk: written beside and moved into place, so a reader never sees half a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from core.errors import ArtifactError, storage_error


def write_json(path: Path, value: Any) -> None:
    """Write beside, then move into place. Raises StorageError with the cause (full disk, no permission)."""
    write_text(path, json.dumps(value, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write beside, then move into place. Raises StorageError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):  # the folder itself may be missing
            beside.unlink()
        raise storage_error(path, error) from error


def read_json(path: Path) -> Any:
    """Raises ArtifactError if the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path.name} is not there yet.") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); run the analysis again.") from error


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: dict[str, str]) -> None:
    """Write arrays beside, then move into place. Raises StorageError; what was there before stays then."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(arrays), beside, metadata=metadata)
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # the folder itself may be missing
            beside.unlink()
        cause = error if isinstance(error, OSError) else OSError(str(error))
        raise storage_error(path, cause) from error


def load_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Arrays and metadata that `save_arrays` wrote. Raises ArtifactError."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
        return load_file(path), metadata
    except FileNotFoundError as error:
        raise ArtifactError(f"{path.name} is not there yet.") from error
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); run the analysis again.") from error
