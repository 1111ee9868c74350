"""What the words of earlier releases mean today: a spec says in which `format` it is written.

A name that has come to mean something else is replaced as it is read, so that a run of the past goes on
saying what it did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Of the specs and sweeps that are written now; those of release 0.1 do not say theirs, which is 1.
FORMAT = 2
#: Format -> dotted path in a spec -> name before it -> name since.
RENAMED: dict[int, dict[str, dict[str, str]]] = {
    2: {
        "prune.reconstruct": {"pre_pruning": "pre_pruning_refit"},
        "sweep.reconstruct": {"pre_pruning": "pre_pruning_refit"},
    },
}


def upgrade(raw: dict[str, Any], written: int) -> None:
    """Bring a spec's JSON, which is written in this format, to today's, in place."""
    for number in range(written + 1, FORMAT + 1):
        for path, names in RENAMED[number].items():
            *places, last = path.split(".")
            part: Any = raw
            for place in places:
                part = part.get(place) if isinstance(part, dict) else None
            if isinstance(part, dict) and last in part:
                part[last] = _renamed(part[last], names)
    raw["format"] = FORMAT


def today(path: str, name: str, written: int) -> str:
    """What a name at this path of a spec in this format is called today."""
    for number in range(written + 1, FORMAT + 1):
        name = RENAMED[number].get(path, {}).get(name, name)
    return name


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A name, or each of several; whatever else it is stays."""
    if isinstance(value, list):
        return [_renamed(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value
