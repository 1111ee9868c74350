"""Which methods there are. Criteria need torch, so they are asked for once through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import LaunchError
from core.methods import METHODS
from core.registry import Entry, Option, check_options, unknown
from core.spec.explore import ExploreSpec
from core.spec.units import MANUAL

ROOT = Path(__file__).resolve().parents[2]
_lock = threading.Lock()
_known: list[Method] = []


@dataclass(frozen=True)
class Method:
    """What people need to know of a method.

    Attributes:
        needs_data: False where weights alone decide.
        trains: whether it learns what goes; it then has presets.
        options: its own settings by name.
    """

    name: str
    paper: str = ""
    equation: str = ""
    summary: str = ""
    needs_data: bool = True
    trains: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)


#: Ranks nothing, so the registry does not know it.
CHOSEN = Method(
    MANUAL, summary="Removes exactly the units written below; nothing is ranked.", needs_data=False
)


#: Methods that learn what goes. Their registry needs no torch, so they are known at once.
TRAINING = [
    Method(entry.name, entry.paper, entry.equation, entry.summary, bool(entry.needs), True, entry.options)
    for entry in METHODS
]


def names() -> list[str]:
    """Method names at once: those a standard analysis scores, and the others behind once all are known.

    So a name that somebody is about to click stays where it is when the others come.
    """
    found, usual = ranking(), ExploreSpec().criteria
    first = [name for name in found if name in usual]
    return [*first, *(method.name for method in TRAINING), MANUAL, *found[len(first) :]]


def ranking() -> list[str]:
    """Methods that score units, as far as they are known, the usual ones first and in their order."""
    usual = list(ExploreSpec().criteria)
    known = [method.name for method in _known] or usual
    return sorted(known, key=lambda name: usual.index(name) if name in usual else len(usual))


def find(name: str) -> Method | None:
    """What is known of a method so far."""
    return next((method for method in [*_known, *TRAINING, CHOSEN] if method.name == name), None)


def origin(name: str, options: Mapping[str, Any]) -> Method | None:
    """The criterion whose scores a training starts from; None where there is none, or it is not known yet.

    Where an option is not the training's own it may be the criterion's: then it is asked for, which may
    take seconds once.

    Raises:
        UnknownNameError: there is no such criterion. LaunchError: it cannot be asked for.
    """
    first = METHODS[name].component.start_from(options)
    if not first:
        return None
    if set(options) - set(METHODS[name].options):
        all_methods()
    if _known and first not in ranking():
        raise unknown("criterion", first, ranking())
    return find(first)


def check(name: str, options: Mapping[str, Any]) -> None:
    """Raises SpecError, UnknownNameError where an option is nobody's, or its value is not accepted."""
    if options and not trains(name):
        all_methods()
    found = [find(name), origin(name, options) if trains(name) else None]
    check_options([Entry(one.name, None, "", "", (), "", one.options) for one in found if one], options)


def presets() -> list[str]:
    """The presets of all methods that train."""
    return list(dict.fromkeys(preset for entry in METHODS for preset in entry.component.presets))


def trains(name: str) -> bool:
    """Whether a method learns what goes."""
    return any(method.name == name for method in TRAINING)


def all_methods(timeout_s: float = 180) -> list[Method]:
    """Every method that ranks, asked for once per dashboard; seconds the first time. Raises LaunchError."""
    with _lock:
        if not _known:
            _known.extend(_ask(timeout_s))
        return list(_known)


def _ask(timeout_s: float) -> list[Method]:
    command = [sys.executable, "-m", "core", "methods", "--json"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=True
        )
        return parse(done.stdout)
    except subprocess.CalledProcessError as error:
        raise LaunchError(f"The list of methods cannot be read: {error.stderr.strip()[-300:]}") from error
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
        raise LaunchError(f"The list of methods cannot be read: {error}; open the tab again.") from error


def parse(text: str) -> list[Method]:
    """The criteria in what `python -m core methods --json` prints. Raises ValueError or KeyError."""
    return [
        Method(
            raw["name"],
            raw["paper"],
            raw["equation"],
            raw["summary"],
            bool(raw["needs"]),
            options={name: Option.described(one) for name, one in raw["options"].items()},
        )
        for raw in json.loads(text)["methods"]
        if not raw.get("trains")
    ]
