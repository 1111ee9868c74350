"""Find what a name stands for, and read its rows: a file, a folder, a named data set, or one on the hub."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from core.errors import DataError
from core.models.hub import UnreachableError, hub_rows
from core.models.rows import ACCEPTED, SUFFIXES, check_readable, file_rows, files_of, is_plain, suffix_of
from core.spec.texts import BUNDLED, IN_PARTS, NAMED, DataName, Part, data_name

#: Where `--data-dir` is not given: the folder with copies of named data sets.
DATA_DIR = "PRUNEVIZ_DATA_DIR"
#: owner/name of a data set on the hub.
_HUB = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Opened:
    """A data set, about to be read.

    Attributes:
        name: for people; rows: read once, as far as somebody goes on.
        columns: where the text of a row stands; empty where it has to be found.
        whole: whether it is a file, and read to its end.
        plain: whether it is text without rows.
    """

    name: str
    rows: Iterator[Any]
    columns: tuple[str, ...] = ()
    whole: bool = False
    plain: bool = False


def open_data(typed: str, part: Part, folder: str | None = None) -> Opened:
    """Find a data set; nothing is read yet, and what cannot be read is said at the first row.

    Args:
        typed: a file, a folder in the hub's layout, a name of `NAMED`, or `owner/name` of the hub; each with
            `:config:split:column` if need be.
        part: what it is for, which says the split of a named one.
        folder: has copies of named data sets; None for what the environment says.

    Raises:
        DataError: there is no such thing.
    """
    asked = DataName(typed) if Path(typed).expanduser().is_file() else data_name(typed)
    if asked.named:
        return _named(asked, part, folder or os.environ.get(DATA_DIR))
    path, columns = Path(asked.source).expanduser(), (asked.column,) if asked.column else ()
    if path.is_file():
        check_readable(path)
        return Opened(path.name, file_rows(path), columns, whole=True, plain=is_plain(path))
    on_hub = _HUB.fullmatch(asked.source) and suffix_of(path) not in SUFFIXES
    if path.is_dir() or on_hub:
        return Opened(asked.title(part), hub_rows(asked.source, asked.config, asked.split), columns)
    raise _unknown(typed)


def _named(asked: DataName, part: Part, folder: str | None) -> Opened:
    """From the folder if it has a copy, else from the hub."""
    data, split = asked.named, asked.split_for(part)
    assert data, "only named data sets come here"
    columns = (asked.column,) if asked.column else data.columns
    copies = _copies(asked, split, Path(folder).expanduser()) if folder else []
    if copies:
        rows = chain.from_iterable(file_rows(path, data.lines) for path in copies)
        return Opened(asked.title(part), rows, columns if not all(map(is_plain, copies)) else ())
    config = asked.config or data.config
    return Opened(asked.title(part), _from_hub(asked, config, split, folder), columns)


def _from_hub(asked: DataName, config: str, split: str, folder: str | None) -> Iterator[Any]:
    data = asked.named
    assert data, "only named data sets come here"
    try:
        yield from hub_rows(data.hub, config, split, revision=data.revision, files=data.files)
    except UnreachableError as error:
        where = folder or "FOLDER"
        held = f"{folder} has no {asked.source} either; put" if folder else "Put"
        raise UnreachableError(
            f"{data.title} cannot be read: the hub cannot be reached, and no copy of {data.hub} is cached. "
            f"{held} its files at {where}/{asked.source}/{split}.jsonl (or another of {ACCEPTED})"
            f"{'' if folder else ' and give --data-dir FOLDER'}, or give '{BUNDLED}' or a file."
        ) from error


def _copies(asked: DataName, split: str, folder: Path) -> list[Path]:
    """The files of a split: in `NAME/`, `owner/name/` or `name/` of the hub, or a file `NAME.jsonl`."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder} with data sets; leave --data-dir out for the hub.")
    data = asked.named
    assert data, "only named data sets come here"
    for place in (asked.source, data.hub, data.hub.rpartition("/")[2]):
        if (folder / place).is_dir():
            return files_of(folder / place, asked.config or data.config, split)
    return sorted(path for path in folder.glob(f"{asked.source}.*") if suffix_of(path) in SUFFIXES)[:1]


def _unknown(typed: str) -> DataError:
    near = difflib.get_close_matches(typed.lower(), [*IN_PARTS, *NAMED], n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    bundled, names = ", ".join(f"'{name}'" for name in IN_PARTS), ", ".join(NAMED)
    return DataError(
        f"Unknown text '{typed}'.{hint} Give {bundled}, a named data set ({names}), a file "
        f"that exists ({ACCEPTED}), or a hub data set as owner/name:config:split:column; units can also be "
        "scored by 'self', text the model writes."
    )
