"""JSON, text and arrays on disk: written beside and moved into place, so a reader never sees half a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from core.errors import ArtifactError, storage_error

Record = TypeVar("Record")


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


@contextmanager
def reading(path: Path, remedy: str = "run the analysis again") -> Iterator[None]:
    """Read `path` in a `with` block: what a missing or damaged file raises becomes an ArtifactError.

    Args:
        remedy: ends the message about a damaged file; says how to get a new one.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactError(f"{path.name} is not there yet.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); {remedy}.") from error


def read_json(path: Path) -> Any:
    """Raises ArtifactError if the file is missing or damaged."""
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def read_records(path: Path, parse: Callable[[Any], Record], remedy: str) -> dict[str, Record]:
    """Read a file of one record per model, such as `perplexity.json`: side -> record; empty without a file.

    Args:
        parse: makes a record of its JSON; may raise KeyError, TypeError, ValueError or AttributeError.
        remedy: see `reading`.

    Raises:
        ArtifactError: the file is damaged.
    """
    if not path.exists():
        return {}
    raw = read_json(path)
    with reading(path, remedy):
        return {side: parse(record) for side, record in raw.items()}


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
    with reading(path):
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
        return load_file(path), metadata
