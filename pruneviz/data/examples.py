"""Runs of the demo model that come with the program, so that no tab is empty on a first visit.

They are only read: they lie beside the program and not in a runs folder, so nothing can resume, stop, remove
or export one. `manifest.json` has every file's SHA-256; an example that differs is left out with a note.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from core.errors import ArtifactError
from core.files import content, read_record
from core.runs.artifacts import METRICS, read_metrics, read_spec
from core.runs.status import read_status
from pruneviz.data.runs import RunRecord

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Examples:
    """What is there.

    Attributes:
        records: the sound ones, newest first.
        notes: what is left out and why, in sentences.
    """

    records: tuple[RunRecord, ...] = ()
    notes: tuple[str, ...] = ()


def read_examples(folder: Path | None) -> Examples:
    """The examples in this folder; none where there is no folder. Never raises.

    They are read again once a file has changed: every tab of every page asks for them.
    """
    return _read(folder, _stamps(folder)) if folder and folder.is_dir() else Examples()


def _stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    files = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    stats = ((file, os.lstat(file)) for file in sorted(files))
    return tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)


@lru_cache(maxsize=4)
def _read(folder: Path, stamps: tuple[tuple[str, int, int], ...]) -> Examples:
    try:
        sums = read_record(folder / MANIFEST, dict[str, str], remedy="")
    except ArtifactError as error:
        return Examples(notes=(f"The examples are left out: {error}",))
    records, notes = [], []
    for name in sorted({file.partition("/")[0] for file in sums}):
        own = {file: sums[file] for file in sums if file.startswith(f"{name}/")}
        if damaged := [file for file in own if _sum(folder / file) != own[file]]:
            gone = [file for file in damaged if not os.path.lexists(folder / file)]
            changed = [file for file in damaged if file not in gone]
            found = ((gone, "missing"), (changed, "not as it came"))
            said = [f"{', '.join(some)} {'are' if some[1:] else 'is'} {how}" for some, how in found if some]
            notes.append(f"The example {name} is left out: {'; '.join(said)}.")
            continue
        try:
            records.append(_record(folder / name))
        except ArtifactError as error:
            notes.append(f"The example {name} is left out: {error}")
    records.sort(key=lambda record: (record.status.created, record.id), reverse=True)
    return Examples(tuple(records), tuple(notes))


def _sum(path: Path) -> str:
    """A file's SHA-256, empty where it cannot be read."""
    try:
        return hashlib.sha256(content(path)).hexdigest()
    except (OSError, ValueError):
        return ""


def _record(path: Path) -> RunRecord:
    """Raises ArtifactError."""
    metrics = read_metrics(path) if (path / METRICS).exists() else {}
    status = replace(read_status(path), state="finished")
    return RunRecord(path.name, path, read_spec(path), status, metrics, example=True)
