"""Name -> component, with "did you mean"."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from core.checked import checked, made_of
from core.errors import UnknownNameError
from core.option import Option, options_of

T = TypeVar("T")


def unknown(what: str, given: str, available: list[str]) -> UnknownNameError:
    """The error for a name that is not there: what was got, the nearest name, and all of them."""
    near = difflib.get_close_matches(given, available, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UnknownNameError(f"Unknown {what} '{given}'.{hint} Available: {', '.join(available) or 'none'}.")


@checked
class NoOptions:
    """Of a component that has none."""


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered component and what people need to know of it.

    Attributes:
        paper: where it comes from; equation: where in the paper.
        needs: the statistics it reads, by name (empty: no data needed).
        summary: two sentences for people.
        channels: whether it scores every channel of a unit, (units, channels); the unit is worth their sum.
        settings_class: a class that `core.option.checked` made, whose fields are its own options.
        scopes: the scopes it says something in; empty for all.
    """

    name: str
    component: T
    paper: str
    equation: str
    needs: tuple[str, ...]
    summary: str
    settings_class: Any = NoOptions
    channels: bool = False
    scopes: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Option]:
        """Its own options by name."""
        return options_of(self.settings_class)

    def settings(self, given: Mapping[str, Any]) -> Any:
        """An object of `settings_class` with what was given; names of others' options are passed over.

        Raises:
            SpecError: a value that is not accepted.
        """
        own = {name: option.read(given[name]) for name, option in self.options.items() if name in given}
        return made_of(self.settings_class, own, f"{self.name}: ")

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
    names = list(dict.fromkeys(name for entry in entries for name in entry.options))
    for name in given:
        if name not in names:
            raise unknown(f"option of {', '.join(entry.name for entry in entries)}", name, names)
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
        options: Any = NoOptions,
        channels: bool = False,
        scopes: tuple[str, ...] = (),
    ) -> Callable[[T], T]:
        """Decorator that files a component under `name`. Raises ValueError if the name is taken."""

        def decorate(component: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.what} '{name}' is registered twice")
            self._entries[name] = Entry(
                name, component, paper, equation, needs, summary, options, channels, scopes
            )
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
