"""The options of a method that trains: meaning, default, what the preset says and what is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from core.methods import METHODS
from core.registry import Option
from pruneviz.data.methods import Method

#: Options that have a field of their own in the form.
FIELDS = ("steps",)
#: The option that names the criterion to start from.
START = "start_from"


@dataclass(frozen=True)
class OptionInfo:
    """One option.

    Attributes:
        kind: `flag`, `choice`, `whole`, `number` or `text`: how it is asked for.
        low, high: the lowest and highest number accepted, None if any is.
        default: without a preset; preset: what the preset makes of it; value: what this run takes.
        own: whether this run takes something else than the preset says.
        where: options that must have these values for this one to count, by name.
    """

    name: str
    meaning: str
    kind: str
    choices: list[Any]
    low: float | None
    high: float | None
    default: Any
    preset: Any
    value: Any
    own: bool
    where: dict[str, str]


def options_info(
    method: str, preset: str, beside: dict[str, Any], first: Method | None = None
) -> list[OptionInfo]:
    """All options of a method in its own order, but for those in `FIELDS`; then those of where it starts.

    Args:
        beside: option -> value that this run asks for instead of the preset's.
        first: the criterion whose scores it starts from, if it is known.
    """
    entry = METHODS[method]
    said = entry.component.presets[preset].get("prune.options", {})
    own = {name: option for name, option in entry.options.items() if name not in FIELDS}
    found = [_info(name, option, said.get(name, option.default), beside, {}) for name, option in own.items()]
    if first is None:
        return found
    theirs = {
        name: one._replace(meaning=f"{first.name}: {one.meaning}") for name, one in first.options.items()
    }
    where = {START: first.name}
    return found + [_info(name, one, one.default, beside, where) for name, one in theirs.items()]


def _info(
    name: str, option: Option, preset: Any, beside: dict[str, Any], where: dict[str, str]
) -> OptionInfo:
    low, high = option.within or (None, None)
    value = beside.get(name, preset)
    return OptionInfo(
        name, option.meaning, _kind(option), list(option.choices), low, high, option.default, preset,
        value, value != preset, where,
    )  # fmt: skip


def _kind(option: Option) -> str:
    if option.choices:
        return "choice"
    return {bool: "flag", int: "whole", float: "number", str: "text"}[type(option.default)]


def to_browser(preset: str, options: list[OptionInfo], own: str = "") -> dict[str, Any]:
    """What the table of options draws. `own` is what it told last, so that it knows an old answer."""
    return {"preset": preset, "own": own, "options": [asdict(option) for option in options]}
