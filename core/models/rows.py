"""Read files and hub data sets as text or as rows, which share one layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import DataError

#: At most this many characters of a hub data set are read: more than calibration needs, less than C4 has.
_MOST_CHARACTERS = 2_000_000
SUFFIXES = (".txt", ".raw", ".md", ".jsonl", ".json")
_ROWS = (".jsonl", ".json")
_ACCEPTED = ", ".join(SUFFIXES)


def file_text(name: str) -> str:
    """The text of a file; of a `.jsonl` or `.json` file the text of all rows. Raises DataError."""
    path, raw = _read(name)
    if path.suffix.lower() not in _ROWS:
        return raw
    return "\n\n".join(row_to_text(str(path), number, row) for number, row in enumerate(_rows(path, raw), 1))


def rows_of(name: str) -> list[Any]:
    """The rows of a `.jsonl` or `.json` file; a file of plain text has none. Raises DataError."""
    path, raw = _read(name)
    return _rows(path, raw) if path.suffix.lower() in _ROWS else []


def _read(name: str) -> tuple[Path, str]:
    path = Path(name).expanduser()
    if not path.is_file():
        raise DataError(
            f"Unknown text '{name}'. Give 'bundled', a file that exists ({_ACCEPTED}), or a hub data "
            "set as owner/name:config:split; units can also be scored by 'self', text the model writes."
        )
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path.name} cannot be read as text; give one of {_ACCEPTED}.")
    try:
        return path, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}.") from error


def _rows(path: Path, raw: str) -> list[Any]:
    whole = path.suffix.lower() == ".json"
    documents = [raw] if whole else [line for line in raw.split("\n") if line.strip()]
    try:
        rows = [json.loads(document) for document in documents]
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from error
    if whole:
        (rows,) = rows
    if not isinstance(rows, list):
        raise DataError(f"{path} must hold a list of rows, got {type(rows).__name__}.")
    return rows


def row_to_text(where: str, number: int, row: Any) -> str:
    """A row's `text`, or Alpaca's instruction, input and output one after the other.

    Raises:
        DataError: it has neither; the message names `where` and the row's number.
    """
    if isinstance(row, str):
        return row
    if isinstance(row, dict) and isinstance(row.get("text"), str):
        return str(row["text"])
    if isinstance(row, dict) and "instruction" in row and "output" in row:
        return "\n".join(str(row[key]) for key in ("instruction", "input", "output") if row.get(key))
    raise DataError(f"{where}, row {number}: no field 'text', and no 'instruction' and 'output' either.")


def hub_rows(name: str) -> Iterator[Any]:
    """Stream the rows of a hub data set, so that only what is read is downloaded.

    Args:
        name: `owner/name`, `owner/name:config` or `owner/name:config:split`; a local folder in the hub's
            layout is named alike. Without a split, `train` is read, or the first split if it has none.

    Raises:
        DataError: there is no such data set, config or split.
    """
    # Imported here because they take a second or two.
    from datasets import get_dataset_split_names, load_dataset
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    source, config, split = (*name.split(":"), "", "")[:3]
    try:
        splits = get_dataset_split_names(source, config or None)
        split = split or ("train" if "train" in splits else splits[0])
        yield from load_dataset(source, config or None, split=split, streaming=True)
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(
            f"'{name}' is neither a file nor a data set that can be read from the hub ({reason}). "
            f"Give 'bundled', a file ({_ACCEPTED}), or a data set as owner/name:config:split."
        ) from error


def hub_text(name: str) -> str:
    """The text of the first rows of a hub data set, see `hub_rows`. Raises DataError."""
    texts, length = [], 0
    for number, row in enumerate(hub_rows(name), 1):
        texts.append(row_to_text(name, number, row))
        length += len(texts[-1])
        if length > _MOST_CHARACTERS:
            break
    return "\n\n".join(texts)
