"""JSON, text and arrays on disk: written beside and moved into place, so a reader never sees half a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from core.errors import ArtifactError, SpecError, storage_error

T = TypeVar("T")
#: What a reader may stumble over in a file that somebody damaged.
DAMAGES = (
    OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, SafetensorError,
    SpecError,
)  # fmt: skip
MOST_REASONS = 3


def write_json(path: Path, value: Any) -> None:
    """Write beside, then move into place. Raises StorageError with the cause (full disk, no permission)."""
    write_text(path, json.dumps(value, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write beside, then move into place. Raises StorageError."""
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Where to write what shall stand at `path`; it is moved there in the end. Raises StorageError.

    After an error what was there before stays. SafetensorError is how that library reports a full disk.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # the folder itself may be missing
            beside.unlink()
        cause = error if isinstance(error, OSError) else OSError(str(error))
        raise storage_error(path, cause) from error


@contextmanager
def reading(path: Path, remedy: str = "run the analysis again") -> Iterator[None]:
    """Turn what goes wrong while `path` is read into an ArtifactError: it is missing, or damaged.

    Args:
        remedy: what a person can do about a damaged file; empty if that is said elsewhere.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactError(f"{path.name} is not there yet.") from error
    except DAMAGES as error:
        remedy = f"; {remedy}" if remedy else ""
        raise ArtifactError(f"{path} is damaged ({_reason(error)}){remedy}.") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        places = [(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors(include_url=False)]
        return "; ".join(f"{place}: {words}" if place else words for place, words in places[:MOST_REASONS])
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def read_json(path: Path) -> Any:
    """Raises ArtifactError if the file is missing or damaged."""
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def read_record(path: Path, kind: type[T], remedy: str = "run the analysis again") -> T:
    """A JSON file as a value of this type, e.g. a dataclass or a dict of them.

    Every field must have exactly the type that is stated: no text for a number, no list for an object.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    with reading(path, remedy):
        record: T = _adapter(cast(Any, kind)).validate_json(path.read_bytes(), strict=True, extra="forbid")
    return record


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: dict[str, str]) -> None:
    """Write arrays beside, then move into place. Raises StorageError; what was there before stays then."""
    with written_beside(path) as beside:
        save_file(dict(arrays), beside, metadata=metadata)


def load_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Arrays and metadata that `save_arrays` wrote. Raises ArtifactError."""
    with reading(path):
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
        return load_file(path), metadata
