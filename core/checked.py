"""Classes whose fields are checked when an object is made, with every mistake in our words."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from core.errors import SpecError
from core.option import Option, RefusedError, options_of

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def checked(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass whose fields are checked. Making one raises SpecError."""
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    made: Any = dataclass(frozen=True, config=config)(cls)
    init = made.__init__

    @wraps(init)
    def explained(self: T, *args: Any, **values: Any) -> None:
        try:
            init(self, *args, **values)
        except ValidationError as error:
            raise explain(made, error) from error

    made.__init__ = explained
    return made


def made_of(cls: type[T], values: Mapping[str, Any], who: str) -> T:
    """An object of a class that `checked` made. Raises SpecError, with `who` before the name of the field."""
    try:
        return cls(**values)
    except SpecError as error:
        if isinstance(error.__cause__, ValidationError):
            raise explain(cls, error.__cause__, who=who) from error.__cause__
        raise


def explain(cls: Any, error: ValidationError, where: str = "spec", who: str = "") -> SpecError:
    """The first mistake in our words.

    Args:
        where: what a whole object of this class is called; who: stands before the name of a field.
    """
    first = error.errors(include_url=False)[0]
    place = list(first["loc"])
    while len(place) > 1 and place[0] in _parts(cls):
        where, cls = str(place[0]), _parts(cls)[place.pop(0)]
    if not place or place[0] in _parts(cls):
        name = place[0] if place else where
        return SpecError(f"{name} must be a JSON object, got {first['input']!r}.")
    names = list(cls.__pydantic_fields__)
    if first["type"] == "unexpected_keyword_argument":
        beside = [each["loc"] for each in error.errors() if each["type"] == first["type"]]
        strays = sorted(str(loc[-1]) for loc in beside if loc[:-1] == first["loc"][:-1])
        return SpecError(
            f"{where} has no field {', '.join(map(repr, strays))}.{_hint(strays[0], names)} "
            f"It has {', '.join(names)}."
        )
    name = names[place[0]] if isinstance(place[0], int) else place[0]
    return _explain_value(options_of(cls)[str(name)], first, who)


def _parts(cls: Any) -> dict[str | int, Any]:
    """The fields of a class that hold fields of their own."""
    kinds = {name: info.annotation for name, info in cls.__pydantic_fields__.items()}
    return {name: kind for name, kind in kinds.items() if dataclasses.is_dataclass(kind)}


def _hint(given: Any, names: Iterable[Any]) -> str:
    near = difflib.get_close_matches(str(given), map(str, names), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def _explain_value(option: Option, error: Any, who: str) -> SpecError:
    wrong = error.get("ctx", {}).get("error")
    got = wrong.args[0] if isinstance(wrong, RefusedError) else error["input"]
    names = ", ".join(map(str, option.choices))
    if error["type"] == "too_short":
        return SpecError(f"{who}{option.spoken} is empty; give at least one{names and f' of {names}'}.")
    if error["type"] == "tuple_type":
        return SpecError(f"{who}{option.spoken} must be a list, {option.accepted()}, got {got!r}.")
    if hint := _hint(got, option.choices):
        return SpecError(f"{who}Unknown {option.spoken} '{got}'.{hint} Available: {names}.")
    why = f"; {option.help.rstrip('.')}" if who and option.help else ""
    meant = _percent(option, got)
    return SpecError(f"{who}{option.spoken} must be {option.accepted()}, got {got!r}{meant}{why}.")


def _percent(option: Option, got: Any) -> str:
    """What was probably meant by a number that is no share, but may be one in percent."""
    share = option.item is float and option.most is not None and option.most[0] == 1
    number = isinstance(got, int | float) and 1 < got <= 100
    return f" ({got:g} % is {got / 100:g})" if share and number else ""
