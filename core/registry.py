"""Name -> component, with "did you mean"."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from core.errors import SpecError, UnknownNameError

T = TypeVar("T")


def unknown(what: str, given: str, available: list[str]) -> UnknownNameError:
    """The error for a name that is not there: what was got, the nearest name, and all of them."""
    near = difflib.get_close_matches(given, available, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UnknownNameError(f"Unknown {what} '{given}'.{hint} Available: {', '.join(available) or 'none'}.")


class Option(NamedTuple):
    """A component's own setting, given as `--set name=value`.

    Attributes:
        default: its type is the option's type: bool, int, float or str.
        choices: what is accepted, if only a few things are.
        within: the lowest and highest number accepted, both included.
    """

    default: Any
    meaning: str
    choices: tuple[Any, ...] = ()
    within: tuple[float, float] | None = None

    def describe(self) -> dict[str, Any]:
        """The option as a JSON object."""
        choices = {"choices": list(self.choices)} if self.choices else {}
        within = {"within": list(self.within)} if self.within else {}
        return {"default": self.default, "meaning": self.meaning, **choices, **within}

    @classmethod
    def described(cls, raw: Mapping[str, Any]) -> Option:
        """The option that `describe` gave. Raises KeyError."""
        within = tuple(raw["within"]) if "within" in raw else None
        return cls(raw["default"], raw["meaning"], tuple(raw.get("choices", ())), within)

    def read(self, name: str, value: Any) -> Any:
        """`value` in the option's type. Raises SpecError if it is none that is accepted."""
        wanted: type = type(self.default)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if wanted is float and number:
            value = float(value)
        elif wanted is str and number:
            value = str(value)
        low, high = self.within or (-math.inf, math.inf)
        fits = type(value) is wanted and (not self.choices or value in self.choices)
        if not fits or (self.within and not low <= value <= high):
            raise SpecError(f"{name} must be {self._accepted()}, got {value!r}; {self.meaning}.")
        return value

    def _accepted(self) -> str:
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        range_ = f" from {self.within[0]:g} to {self.within[1]:g}" if self.within else ""
        return kinds[type(self.default)] + range_


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered component and what people need to know of it.

    Attributes:
        paper: where it comes from; equation: where in the paper.
        needs: the statistics it reads, by name (empty: no data needed).
        summary: two sentences for people.
        options: its own settings by name.
    """

    name: str
    component: T
    paper: str
    equation: str
    needs: tuple[str, ...]
    summary: str
    options: Mapping[str, Option] = field(default_factory=dict)

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every option's value: the default, or what was given; names of others' options are passed over.

        Raises:
            SpecError: a value that is not accepted.
        """
        return {
            key: option.read(f"{self.name}: {key}", given[key]) if key in given else option.default
            for key, option in self.options.items()
        }

    def describe(self) -> dict[str, Any]:
        """The entry as a JSON object, as `python -m core methods --json` prints it."""
        return {
            "name": self.name,
            "paper": self.paper,
            "equation": self.equation,
            "needs": list(self.needs),
            "summary": self.summary,
            "options": {key: option.describe() for key, option in self.options.items()},
        }


def check_options(entries: Sequence[Entry[Any]], given: Mapping[str, Any]) -> None:
    """Whether each option belongs to one of the components, with a value that is accepted.

    Raises:
        UnknownNameError, SpecError: it does not.
    """
    known = list(dict.fromkeys(key for entry in entries for key in entry.options))
    for key in given:
        if key not in known:
            raise unknown(f"option of {', '.join(entry.name for entry in entries)}", key, known)
    for entry in entries:
        entry.settings(given)


class Registry(Generic[T]):
    """Components by name, in the order of registration."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._entries: dict[str, Entry[T]] = {}

    def register(
        self,
        name: str,
        *,
        paper: str,
        summary: str,
        equation: str = "",
        needs: tuple[str, ...] = (),
        options: Mapping[str, Option] | None = None,
    ) -> Callable[[T], T]:
        """Decorator that files a component under `name`. Raises ValueError if the name is taken."""

        def decorate(component: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.what} '{name}' is registered twice")
            self._entries[name] = Entry(name, component, paper, equation, needs, summary, options or {})
            return component

        return decorate

    def __getitem__(self, name: str) -> Entry[T]:
        """The entry. Raises UnknownNameError."""
        if name not in self._entries:
            raise unknown(self.what, name, self.names())
        return self._entries[name]

    def __iter__(self) -> Iterator[Entry[T]]:
        return iter(self._entries.values())

    def names(self) -> list[str]:
        """All names, in order of registration."""
        return list(self._entries)
