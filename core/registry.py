"""Name -> component, with "did you mean"."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from core.errors import UnknownNameError

T = TypeVar("T", bound=Callable[..., Any])


def unknown(what: str, given: str, available: list[str]) -> UnknownNameError:
    """The error for a name that is not there: what was got, the nearest name, and all of them."""
    near = difflib.get_close_matches(given, available, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UnknownNameError(f"Unknown {what} '{given}'.{hint} Available: {', '.join(available) or 'none'}.")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered component and what people need to know of it.

    Attributes:
        paper: where it comes from; equation: where in the paper.
        needs: the statistics it reads, by name (empty: no data needed).
        summary: two sentences for people.
        options: option -> (default, meaning).
    """

    name: str
    component: T
    paper: str
    equation: str
    needs: tuple[str, ...]
    summary: str
    options: dict[str, tuple[Any, str]] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """The entry as a JSON object, as `python -m core methods --json` prints it."""
        return {
            "name": self.name,
            "paper": self.paper,
            "equation": self.equation,
            "needs": list(self.needs),
            "summary": self.summary,
            "options": {
                key: {"default": default, "meaning": text} for key, (default, text) in self.options.items()
            },
        }


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
        options: dict[str, tuple[Any, str]] | None = None,
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
