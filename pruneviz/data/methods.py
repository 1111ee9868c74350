"""Which methods there are, as a person chooses among them. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.criteria import CRITERIA
from core.criteria.registry import check_scopes
from core.methods import METHODS
from core.option import Option
from core.registry import Entry, check_options
from core.spec.explore import ExploreSpec
from core.spec.recommended import RECOMMENDED, Recipe, with_best
from core.spec.units import MANUAL

#: Ranks nothing, so no registry has it.
CHOSEN: Entry[Any] = Entry(
    MANUAL, None, "", "", (), "Removes exactly the units written below; nothing is ranked."
)


#: Stands for one of them, with its scope and refit.
OPEN: Entry[Any] = Entry(
    RECOMMENDED,
    None,
    "",
    "",
    (),
    f"The best known way that needs no training: {Recipe(*3 * [RECOMMENDED]).because()}.",
)


def names() -> list[str]:
    """What is recommended, criteria that a standard analysis scores, those that train, manual, the others."""
    usual = [*_usual(), *METHODS.names(), MANUAL]
    return [RECOMMENDED, *usual, *(name for name in ranking() if name not in usual)]


def ranking() -> list[str]:
    """Methods that score units, the usual ones first and in their order."""
    usual = _usual()
    return [*usual, *(name for name in CRITERIA.names() if name not in usual)]


def _usual() -> list[str]:
    return list(with_best(ExploreSpec().criteria))


def find(name: str) -> Entry[Any] | None:
    """A method by name; None where this release does not have it."""
    return next((entry for entry in (*CRITERIA, *METHODS, CHOSEN, OPEN) if entry.name == name), None)


def options(name: str) -> Mapping[str, Option]:
    """A method's own options; none where this release does not have it."""
    entry = find(name)
    return entry.options if entry else {}


def origin(name: str, options: Mapping[str, Any]) -> Entry[Any] | None:
    """The criterion whose scores a training starts from, or None. Raises UnknownNameError."""
    first = METHODS[name].component.start_from(options)
    return CRITERIA[first] if first else None


def check(name: str, options: Mapping[str, Any]) -> None:
    """Raises SpecError, UnknownNameError where an option is nobody's, or its value is not accepted."""
    entries = [find(name), origin(name, options) if trains(name) else None]
    check_options([entry for entry in entries if entry], options)


def fitting(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options of several criteria that this one has."""
    entry = find(name)
    return {key: value for key, value in options.items() if entry and key in entry.options}


def check_scope(name: str, scope: str) -> None:
    """Raises SpecError where a scope cannot rank by a method."""
    if name in CRITERIA.names():
        check_scopes((name,), (scope,))


def presets() -> list[str]:
    """The presets of all methods that train."""
    return list(dict.fromkeys(preset for entry in METHODS for preset in entry.component.presets))


def trains(name: str) -> bool:
    """Whether a method learns what goes."""
    return name in METHODS.names()
