"""JSON, text and arrays on disk: written beside and moved into place, so a reader never sees half a file."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from core.errors import ArtifactError, SpecError, StorageError, full_disk, storage_error

T = TypeVar("T")
#: What a reader may stumble over in a file that somebody damaged.
DAMAGES = (
    OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, SafetensorError,
    SpecError,
)  # fmt: skip
MOST_REASONS = 3
#: A file that is read whole is no larger: the groups of a model with 80 layers take 60 MB.
MOST_BYTES = 512 * 2**20
#: What JSON may hold at most: levels of nesting, and the size of a whole number.
MOST_DEPTH, LARGEST = 48, 2**63
_guarded: set[Path] = set()


def regular(path: str | Path, flags: int) -> int:
    """An `opener` for `open`: only a file proper, so that no symbolic link, pipe or device is followed.

    Raises:
        OSError: it is something else, which is said, or there is none.
    """
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link, which is not followed", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no file, but a folder, pipe or device", str(path))
    return handle


def there(path: Path) -> bool:
    """Whether a file proper or a folder is there: no symbolic link, pipe or device. Never raises."""
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def remove(path: Path) -> None:
    """Take a file away if there is one. Raises StorageError, e.g. where a folder has its name."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error


def content(path: Path) -> bytes:
    """All of a file proper. Raises OSError, or ValueError if it is larger than any of ours."""
    with open(path, "rb", opener=regular) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise ValueError(f"{size:,} bytes, where at most {MOST_BYTES:,} are read")
        return file.read()


def sound(value: Any) -> Any:
    """What JSON gave, as it is. Raises ValueError for what could be read but never shown or reckoned with.

    That is nesting without end, whole numbers of hundreds of digits, and texts that are no Unicode.
    """
    todo = [(value, 0)]
    while todo:
        part, depth = todo.pop()
        if depth > MOST_DEPTH:
            raise ValueError(f"nested deeper than {MOST_DEPTH} levels")
        if isinstance(part, dict):
            todo += [(each, depth + 1) for pair in part.items() for each in pair]
        elif isinstance(part, list):
            todo += [(each, depth + 1) for each in part]
        elif isinstance(part, str):
            _encodable(part)
        elif isinstance(part, int) and abs(part) >= LARGEST:
            raise ValueError("a whole number with more than 64 bits")
    return value


def _encodable(text: str) -> None:
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text that is no Unicode (half of a surrogate pair)") from error


def write_json(path: Path, value: Any) -> None:
    """Write beside, then move into place. Raises StorageError with the cause (full disk, no permission)."""
    write_text(path, json.dumps(value, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write beside, then move into place. Raises StorageError."""
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")


@contextmanager
def never_made_again(folder: Path) -> Iterator[None]:
    """While it is worked in, this folder is not made anew by whoever writes into it: it was removed then."""
    _guarded.add(folder)
    try:
        yield
    finally:
        _guarded.discard(folder)


def make_folder(folder: Path) -> None:
    """Make a folder and those around it, if need be. Raises OSError."""
    for guarded in _guarded & {folder, *folder.parents}:
        if not guarded.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the run's folder is gone", str(guarded))
    folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Where to write what shall stand at `path`; it is moved there in the end. Raises StorageError.

    After an error what was there before stays. SafetensorError is how that library reports a full disk.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        make_folder(path.parent)
        yield beside
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # the folder itself may be missing
            beside.unlink()
        raise storage_error(path, error) from error


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
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, RecursionError):
        return f"nested deeper than {MOST_DEPTH} levels"
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def read_json(path: Path) -> Any:
    """Raises ArtifactError if the file is missing or damaged. Symbolic links are followed: a hub's cache."""
    with reading(path):
        return sound(json.loads(path.read_bytes()))


def json_text(path: Path) -> str:
    """The text of a JSON file whose values are sound. Raises OSError, ValueError or RecursionError."""
    text = content(path).decode()
    sound(json.loads(text))
    return text


def read_record(path: Path, kind: type[T], remedy: str = "run the analysis again") -> T:
    """A JSON file as a value of this type, e.g. a dataclass or a dict of them.

    Every field must have exactly the type that is stated: no text for a number, no list for an object.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    with reading(path, remedy):
        record: T = _adapter(cast(Any, kind)).validate_json(json_text(path), strict=True, extra="forbid")
    return record


def read_facts(text: str, kind: type[T]) -> T:
    """Facts in an array file's metadata, as a value of this type. Raises ValueError or RecursionError."""
    sound(json.loads(text))
    facts: T = _adapter(cast(Any, kind)).validate_json(text, strict=True, extra="forbid")
    return facts


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
        os.close(regular(path, os.O_RDONLY))
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
        return load_file(path), metadata


@contextmanager
def all_or_nothing(folder: Path, size: int) -> Iterator[Path]:
    """Fill a folder beside `folder`, then move it into place; after an error nothing remains of it."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        make_folder(folder.parent)
        if shutil.disk_usage(folder.parent).free < size:
            raise OSError(28, "No space left on device")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        yield beside
        if folder.exists():
            folder.rename(replaced)
        beside.rename(folder)
    except Exception as error:
        if (cause := _storage_cause(error)) is None:
            raise
        raise storage_error(folder, cause) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)


def _storage_cause(error: BaseException | None) -> Exception | None:
    """The disk's own error; libraries in Rust report it as text only."""
    if isinstance(error, StorageError):
        return _storage_cause(error.__cause__)
    if isinstance(error, (OSError, SafetensorError)):
        return error
    if isinstance(error, Exception) and (full_disk(error) or "os error" in str(error)):
        return error
    return None
