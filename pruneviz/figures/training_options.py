"""The options of a method: meaning, default, what the preset of a training says and what is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from core.methods import METHODS
from core.option import Option
from core.registry import Entry
from pruneviz.data import methods

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
    where: dict[str, str] = field(default_factory=dict)


def options_info(
    method: str, preset: str, beside: dict[str, Any], first: Entry[Any] | None = None
) -> list[OptionInfo]:
    """All options of a method in its own order, but for those in `FIELDS`; then those of where it starts.

    Args:
        beside: option -> value that this run asks for instead of the preset's.
        first: the criterion whose scores it starts from, if any.
    """
    entry = METHODS[method]
    said = entry.component.presets[preset].get("prune.options", {})
    own = [option for name, option in entry.options.items() if name not in FIELDS]
    rows = [_info(option, said.get(option.name, option.value), beside) for option in own]
    if first is None:
        return rows
    theirs = [_info(option, option.value, beside) for option in first.options.values()]
    where = {START: first.name}
    return rows + [replace(row, meaning=f"{first.name}: {row.meaning}", where=where) for row in theirs]


def own_options_info(method: str, beside: dict[str, Any]) -> list[OptionInfo]:
    """All options of a method that ranks, in its own order; `beside` as above, against the defaults."""
    return [_info(option, option.value, beside) for option in methods.options(method).values()]


def _info(option: Option, preset: Any, beside: dict[str, Any]) -> OptionInfo:
    kind = {bool: "flag", int: "whole", float: "number", str: "text"}[option.kind]
    value = beside.get(option.name, preset)
    return OptionInfo(
        option.name, option.help, "choice" if option.choices else kind, list(option.choices),
        option.least[0] if option.least else None, option.most[0] if option.most else None, option.value,
        preset, value, value != preset,
    )  # fmt: skip


def to_browser(preset: str, options: list[OptionInfo], own: str = "") -> dict[str, Any]:
    """What the table of options draws. `own` is what it told last, so that it knows an old answer."""
    return {"preset": preset, "own": own, "options": [asdict(option) for option in options]}
