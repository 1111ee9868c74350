"""Read files row by row: plain text, JSON, Parquet, CSV, also compressed by gzip."""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from core.errors import DataError
from core.spec.texts import SPLITS

PLAIN = (".txt", ".raw", ".md", ".tokens")
_LINES, _WHOLE, _TABLES, _PARQUET = (".jsonl", ".ndjson"), (".json",), (".csv", ".tsv"), (".parquet",)
SUFFIXES = (*PLAIN, *_LINES, *_WHOLE, *_TABLES, *_PARQUET)
ACCEPTED = ", ".join(SUFFIXES)
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def suffix_of(path: Path) -> str:
    """The ending that says what a file holds: of `a.txt.gz` that is `.txt`."""
    endings = [ending.lower() for ending in path.suffixes]
    return next(iter(endings[-2:-1] if endings[-1:] == [".gz"] else endings[-1:]), "")


def is_plain(path: Path) -> bool:
    """Whether it is text as it stands, without rows."""
    return suffix_of(path) in PLAIN


def check_readable(path: Path) -> None:
    """Raises DataError unless this is a file of a kind that can be read."""
    if suffix_of(path) not in SUFFIXES:
        raise DataError(f"{path.name} cannot be read as text; give one of {ACCEPTED}, also as .gz.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); give a text with words in it.")


def plain_text(path: Path) -> str:
    """The text of a file, whatever its byte order mark. Raises DataError."""
    with _reading(path), _opened(path) as file:
        return file.read()


def file_rows(path: Path, lines: str = "") -> Iterator[Any]:
    """The rows of a file, one after the other.

    Args:
        lines: of plain text, see `NamedText.lines`.

    Raises:
        DataError: the file cannot be read; of JSON the message names the line.
    """
    check_readable(path)
    if is_plain(path):
        yield from _plain_rows(path, lines)
    elif suffix_of(path) in _TABLES:
        with _reading(path):
            yield from _table_rows(path)
    elif suffix_of(path) in _PARQUET:
        yield from _parquet_rows(path)
    elif suffix_of(path) in _WHOLE:
        yield from _list_rows(path)
    else:
        with _reading(path), _opened(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _json(path, line, number)


def _plain_rows(path: Path, lines: str) -> Iterator[str]:
    if not lines:
        yield plain_text(path)
        return
    with _reading(path), _opened(path) as file:
        for line in file:
            yield line.strip() if lines == "stripped" or not line.strip() else line


def _list_rows(path: Path) -> Iterator[Any]:
    text = plain_text(path)
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        if (
            text.lstrip().startswith("{") and "Extra data" in error.msg
        ):  # one object a line, whatever its name
            yield from (_json(path, line, i) for i, line in enumerate(text.splitlines(), 1) if line.strip())
            return
        raise DataError(f"{path} is not valid JSON: line {error.lineno}: {error.msg}.") from error
    if isinstance(rows, dict):  # {"data": [...]} and the like
        inside = [value for value in rows.values() if isinstance(value, list)]
        rows = inside[0] if len(inside) == len(rows) == 1 else rows
    if not isinstance(rows, list):
        raise DataError(f"{path} must hold a list of rows, got {type(rows).__name__}.")
    yield from rows


def _json(path: Path, line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: line {number}: {error}.") from error


def _table_rows(path: Path) -> Iterator[Any]:
    import pandas

    tab = "\t" if suffix_of(path) == ".tsv" else ","
    try:
        # Read as texts: a table of numbers may have a column of words that looks like one.
        reader = pandas.read_csv(
            path, sep=tab, dtype=str, keep_default_na=False, chunksize=1000, encoding="utf-8-sig"
        )
        with reader:
            for part in reader:
                yield from part.to_dict("records")
    except ValueError as error:
        raise DataError(f"{path} cannot be read as {suffix_of(path)}: {str(error).strip()}.") from error


def _parquet_rows(path: Path) -> Iterator[Any]:
    from datasets import load_dataset  # takes a second or two
    from datasets.exceptions import DatasetsError

    try:
        yield from load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(f"{path} cannot be read as .parquet: {reason}.") from error


def _opened(path: Path) -> TextIO:
    """A file of text, unpacked if it is compressed, read as its byte order mark says, else as UTF-8."""
    unpacked: Any = gzip.open if path.suffix.lower() == ".gz" else open
    with unpacked(path, "rb") as raw:
        mark = raw.read(2)
    file: TextIO = unpacked(path, "rt", encoding="utf-16" if mark in _UTF_16 else "utf-8-sig")
    return file


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raises DataError for a file that cannot be read as text."""
    try:
        yield
    except UnicodeError as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def files_of(folder: Path, config: str, split: str) -> list[Path]:
    """The files of a split in a folder, in the order of their names; all where none names a split.

    A split is a file or a folder of that name, or part of it: `validation.jsonl`, `wiki.valid.raw`,
    `en/c4-train.00000-of-01024.json.gz`. A folder named like the config is read alone.

    Raises:
        DataError: there are no files, or only those of other splits.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and _holds_rows(path)]
    inside = [path for path in files if config and config in path.relative_to(folder).parts[:-1]]
    files = inside or files
    splits = {path: _split_of(path.relative_to(folder)) for path in files}
    chosen = [path for path in files if splits[path] == split]
    if not chosen and not any(splits.values()):
        chosen = files
    if not chosen:
        there = ", ".join(sorted({name for name in splits.values() if name})) or "no file that can be read"
        other = next(filter(None, splits.values()), "train")
        raise DataError(
            f"{folder} has no split '{split}', it has {there}; put {split}.jsonl there (or one of "
            f"{ACCEPTED}), or name the split: {folder.name}::{other}."
        )
    return chosen


def _holds_rows(path: Path) -> bool:
    about = path.name.lower().startswith(("readme", "license", "dataset_info", "state.", "."))
    return suffix_of(path) in SUFFIXES and not about


def _split_of(path: Path) -> str:
    """Which split a path names, from its file to its outermost folder; empty if none."""
    for part in reversed(path.parts):
        said = set(re.split(r"[^a-z]+", part.lower()))
        for split, names in SPLITS.items():
            if said & set(names):
                return split
    return ""
