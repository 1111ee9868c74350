"""One field of a spec, or one option of a method: all that is said of it stands in one place.

`option` declares it, on a class that `core.checked` makes. From that come the check with its message, the
JSON, the option of the command line, the field of the form, the equivalent command and the table in the docs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field

from core.errors import SpecError

T = TypeVar("T")
#: A path, and one of its parts in bytes, is no longer where it can be looked for.
_LONGEST, _LONGEST_PART = 4095, 255
_NUMBERS: dict[type, str] = {int: "whole number", float: "number"}
_OTHERS: dict[type, str] = {bool: "true or false", str: "a text", dict: "an object: name -> value"}


@dataclasses.dataclass(frozen=True)
class Words:
    """What people read and type of an option.

    Attributes:
        title: its label in a form; without one it has no field there.
        help: sentences on what it does; unit: of its number.
        flag: its option on the command line, `--on/--off` for a switch, empty for none; `--` alone is
            made complete by its name.
        choices: what is accepted, if only a few things are: value -> how a form calls it.
        examples: values that are common among others.
        called: its name in messages, if not the field's.
        wanted: what is accepted, where type, choices and bounds do not tell.
        default_text: the default in words.
        ranking: counts only where scores rank units, not where a method learns which go.
        allocates: is an argument of `core.plan.allocation.allocate`.
        metavar: what the command line's help puts in the place of a value.
        repeated: given once per value on the command line, not with commas.
        parse: reads what is typed: one text, or a list of them where it is repeated.
        write: the texts that `parse` reads.
        least, most: the lowest and highest number accepted, and whether each is accepted itself.
    """

    title: str = ""
    help: str = ""
    unit: str = ""
    flag: str = "--"
    choices: Mapping[Any, str] = dataclasses.field(default_factory=dict)
    examples: Sequence[Any] = ()
    called: str = ""
    wanted: str = ""
    default_text: str = ""
    metavar: str | None = None
    repeated: bool = False
    ranking: bool = False
    allocates: bool = False
    parse: Callable[[Any], Any] | None = None
    write: Callable[[Any], list[str]] | None = None
    least: tuple[float, bool] | None = None
    most: tuple[float, bool] | None = None


def option(
    default: Any,
    help: str = "",
    *,
    choices: Iterable[Any] | Mapping[Any, str] = (),
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    nonempty: bool = False,
    place: bool = False,
    check: Callable[[Any], Any] | None = None,
    default_text: str = "",
    **words: Any,
) -> Any:
    """Declare a field of a class that `checked` makes.

    Args:
        default: the value, or what makes it; a tuple may be given as a list, too.
        choices: values, or value -> how a form calls it.
        ge, gt, le, lt: bounds of a number, or of every number of a tuple.
        nonempty: a text that is not blank, a tuple with at least one value.
        place: may say where a file or folder lies.
        check: returns the value it is given, or raises SpecError.
        words: more of `Words`.
    """
    several = isinstance(default, tuple)
    named = dict(choices) if isinstance(choices, Mapping) else {value: str(value) for value in choices}
    least = (ge, True) if ge is not None else (gt, False) if gt is not None else None
    most = (le, True) if le is not None else (lt, False) if lt is not None else None
    said = Words(help=help, choices=named, default_text=default_text, least=least, most=most, **words)
    info: Any = Field(
        **{"default_factory" if callable(default) else "default": default},
        strict=False if several else None,
        json_schema_extra={"words": said},  # type: ignore[dict-item]
        **({"min_length": 1} if nonempty and several else {"pattern": r"\S"} if nonempty else {}),
    )
    if named or least or most:
        info.metadata.append(AfterValidator(lambda value: _within(said, value, several)))
    if place:
        info.metadata.append(AfterValidator(lambda value: _sought(value, several)))
    if check:
        info.metadata.append(BeforeValidator(check))
    return info


class RefusedError(ValueError):
    """A value, or one of several, that is not among the choices or out of bounds."""


def _within(words: Words, value: Any, several: bool) -> Any:
    for item in value if several else () if value is None else (value,):
        chosen = not words.choices or item in words.choices
        above = words.least is None or item > words.least[0] or (words.least[1] and item == words.least[0])
        below = words.most is None or item < words.most[0] or (words.most[1] and item == words.most[0])
        if not (chosen and above and below):
            raise RefusedError(item)
    return value


def _sought(value: Any, several: bool) -> Any:
    for item in value if several else () if value is None else (value,):
        parts = item.encode(errors="surrogatepass").split(b"/")
        if "\0" in item or len(item) > _LONGEST or max(map(len, parts)) > _LONGEST_PART:
            raise RefusedError(
                item if len(item) < 80 else f"{item[:40]}… ({len(item):,} characters, too many for a file)"
            )
    return value


@dataclasses.dataclass(frozen=True)
class Option(Words):
    """A field as it was declared.

    Attributes:
        kind: bool, int, float, str, tuple or dict; item: of a tuple, the type of what is in it.
        optional: whether it may be None.
        value: its default.
    """

    name: str = ""
    kind: type = str
    item: type = str
    optional: bool = False
    value: Any = None

    @property
    def spoken(self) -> str:
        """Its name in messages."""
        return self.called or self.name

    @property
    def default_words(self) -> str:
        """The default for people to read."""
        if self.default_text:
            return self.default_text
        if isinstance(self.value, bool):
            return "yes" if self.value else "no"
        if isinstance(self.value, float):
            return f"{self.value:g}"
        return ",".join(map(str, self.value)) if self.kind is tuple else str(self.value)

    def accepted(self) -> str:
        """What is accepted, in words."""
        if self.wanted:
            return self.wanted
        if self.choices:
            return f"{'some' if self.kind is tuple else 'one'} of {', '.join(map(str, self.choices))}"
        if self.item in _NUMBERS:
            noun, bounds = _NUMBERS[self.item], _bounds(self.least, self.most)
            return f"{noun}s{bounds}" if self.kind is tuple else f"a {noun}{bounds}"
        return "texts" if self.kind is tuple else _OTHERS[self.kind]

    def explained(self) -> str:
        """What is accepted, with what each choice means where a form has words for it."""
        if self.wanted or all(words == str(choice) for choice, words in self.choices.items()):
            return self.accepted()
        meant = [f"{name} ({_within_a_sentence(words)})" for name, words in self.choices.items()]
        return f"{'some' if self.kind is tuple else 'one'} of {', '.join(meant)}"

    def read(self, given: Any) -> Any:
        """A value from what was typed: a text, several, or what a form made of it already."""
        if self.repeated and isinstance(given, str):
            given = given.split()
        if self.parse is not None:
            return self.parse(given)
        if self.kind is str and isinstance(given, int | float) and not isinstance(given, bool):
            return str(given)  # a text that looks like a number
        if self.kind is float and isinstance(given, str):
            with suppress(ValueError):  # what is not a number is refused with the value itself
                return float(given.replace(",", "."))
        if self.kind is not tuple:
            return given
        return self._listed(given) if isinstance(given, str) else tuple(part for part in given if part)

    def _listed(self, text: str) -> tuple[Any, ...]:
        try:
            return tuple(self.item(part.strip()) for part in text.split(",") if part.strip())
        except ValueError as error:
            raise SpecError(
                f"{self.flag.strip('-')} must be {_NUMBERS[self.item]}s separated by commas, got {text!r}."
            ) from error

    def typed(self, value: Any) -> list[str]:
        """The texts that `read` makes `value` of; several where it is repeated."""
        if self.write is not None:
            return self.write(value)
        if self.kind is tuple and self.repeated:
            return [str(item) for item in value] or [""]
        return [",".join(map(str, value)) if self.kind is tuple else str(value)]

    def describe(self) -> dict[str, Any]:
        """The option as a JSON object."""
        choices = {"choices": list(self.choices)} if self.choices else {}
        within = {"within": [self.least[0], self.most[0]]} if self.least and self.most else {}
        return {"default": self.value, "meaning": self.help, **choices, **within}


def _within_a_sentence(words: str) -> str:
    """Words as they stand inside a sentence; a name, such as LoRA or Weights & Biases, stays one."""
    first, *others = words.split()
    title = others and not any(other[0].islower() for other in others)
    name = title or any(letter.isupper() for letter in first[1:])
    return words if name else words[0].lower() + words[1:]


def _bounds(least: tuple[float, bool] | None, most: tuple[float, bool] | None) -> str:
    if least and most and least[1] and most[1]:
        return f" from {least[0]:g} to {most[0]:g}"
    if least and most:
        return f" in {'[' if least[1] else '('}{least[0]:g}, {most[0]:g}{']' if most[1] else ')'}"
    if least:
        return f" from {least[0]:g} up" if least[1] else f" above {least[0]:g}"
    return f" up to {most[0]:g}" if most else ""


@cache
def options_of(cls: Any) -> dict[str, Option]:
    """The options that a class declares, by name."""
    declared = {}
    for name, info in cls.__pydantic_fields__.items():
        words = (info.json_schema_extra or {}).get("words")
        if words is not None:
            declared[name] = _option(name, info, words)
    return declared


def _option(name: str, info: Any, words: Words) -> Option:
    kind, optional = info.annotation, False
    if get_origin(kind) is UnionType:
        kind, optional = next(part for part in get_args(kind) if part is not type(None)), True
    origin = get_origin(kind)
    item = get_args(kind)[0] if origin is tuple else kind
    of_names = item if isinstance(item, type) else str  # a Literal is of texts
    whole = origin if origin in (tuple, dict) else of_names
    value = info.get_default(call_default_factory=True)
    plain = name.replace("_", "-")
    usual = f"--{plain}/--no-{plain}" if whole is bool else f"--{plain}"
    said = {**words.__dict__, "flag": usual if words.flag == "--" else words.flag}
    return Option(**said, name=name, kind=whole, item=of_names, optional=optional, value=value)
