"""What the words of earlier releases mean today: a spec says in which `format` it is written.

A name that has come to mean something else is replaced as it is read, so that a run of the past goes on
saying what it did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Of the specs and sweeps that are written now; those of release 0.1 do not say theirs, which is 1.
FORMAT = 2
_REFITTING = {"pre_pruning": "pre_pruning_refit"}
_CRITERIA = {"taylor_first": "taylor_first_per_sample", "taylor_mix": "taylor_mix_per_sample"}
#: Format -> dotted path in a spec -> name before it -> name since.
RENAMED: dict[int, dict[str, dict[str, str]]] = {
    2: {
        "prune.reconstruct": _REFITTING,
        "sweep.reconstruct": _REFITTING,
        "prune.method": _CRITERIA,
        "prune.options.start_from": _CRITERIA,
        "sweep.methods": _CRITERIA,
        "explore.criteria": _CRITERIA,
        "explore.sensitivity_criterion": _CRITERIA,
    },
}


def upgrade(raw: dict[str, Any], written: int) -> None:
    """Bring a spec's JSON, which is written in this format, to today's, in place."""
    for number in range(written + 1, FORMAT + 1):
        for path, names in RENAMED[number].items():
            place, _, last = path.rpartition(".")
            part = _at(raw, place)
            if isinstance(part, dict) and last in part:
                part[last] = _renamed(part[last], names)
    if written < 2:
        _whole_structures(raw)
    raw["format"] = FORMAT


def today(path: str, name: str, written: int) -> str:
    """What a name at this path of a spec in this format is called today."""
    for number in range(written + 1, FORMAT + 1):
        name = RENAMED[number].get(path, {}).get(name, name)
    return name


def _whole_structures(raw: dict[str, Any]) -> None:
    """Say of `taylor_vector` in a spec of format 1 that it adds up a head's whole slice of a matrix.

    It knew no other way, and no other criterion has this option.
    """
    scored = [_at(raw, path) for path in _scoring(raw)]
    if any("taylor_vector" in (value if isinstance(value, list) else [value]) for value in scored):
        part = _at(raw, "explore" if raw.get("goal") == "explore" else "prune")
        options = part.setdefault("options", {}) if isinstance(part, dict) else None
        if isinstance(options, dict):
            options.setdefault("vector", "structure")


def _scoring(raw: dict[str, Any]) -> list[str]:
    """Where a spec names the criteria that its run scores with."""
    if raw.get("goal") == "sweep":
        return ["sweep.methods"]
    if raw.get("goal") == "explore":
        analyses = _at(raw, "explore.analyses")
        places = {"scores": "explore.criteria", "sensitivity": "explore.sensitivity_criterion"}
        return [path for name, path in places.items() if isinstance(analyses, list) and name in analyses]
    return ["prune.method", "prune.options.start_from"]


def _at(raw: Any, path: str) -> Any:
    """What stands at a dotted path of a spec's JSON, None where nothing does."""
    for place in path.split("."):
        raw = raw.get(place) if isinstance(raw, dict) else None
    return raw


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A name, or each of several; whatever else it is stays."""
    if isinstance(value, list):
        return [_renamed(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value
