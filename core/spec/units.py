"""Units chosen by hand: as text, as a file, as a plan.

Units of one group are written as a person types them: `0-3, 7` (both ends included) or `all`. With their
group they are `L03.query_head=0-3,7`, which is how the command line and the address of the page say it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from core.errors import SpecError

#: The method of a plan whose units were chosen and not ranked.
MANUAL = "manual"
Units = dict[str, tuple[int, ...]]
#: More than any group has: a range is written out only below this, for a slip of the finger fills the memory.
MOST_UNITS = 10_000_000
_FORM = "write numbers and ranges, for example 0-3, 7"


def checked_units(given: Any) -> Units:
    """Group id -> its units, sorted, each once. Raises SpecError on anything else."""
    if not isinstance(given, Mapping):
        raise SpecError(f"units must map groups to unit numbers, got {given!r}; {_ENTRY}.")
    found = {str(group): _whole_numbers(str(group), units) for group, units in given.items()}
    return {group: units for group, units in sorted(found.items()) if units}


def _whole_numbers(group: str, units: Any) -> tuple[int, ...]:
    several = isinstance(units, Iterable) and not isinstance(units, (str, Mapping))
    numbers = list(units) if several else []
    if not several or not all(type(u) is int and u >= 0 for u in numbers):
        raise SpecError(f"units of {group} must be a list of whole numbers from 0 up, got {units!r}.")
    return tuple(sorted(set(numbers)))


def parse_numbers(text: str, units: int | None = None) -> tuple[int, ...]:
    """Read `0-3, 7`.

    Args:
        units: how many the group has; `all` needs it, and numbers are checked against it.

    Raises:
        SpecError: empty, of another form, running backwards, or a unit that does not exist.
    """
    if text.strip().lower() == "all" and units is not None:
        return tuple(range(units))
    parts = [part for part in text.replace("–", "-").replace(";", ",").split(",") if part.strip()]
    if not parts:
        raise SpecError(f"No unit was given; {_FORM}{', or all' if units is not None else ''}.")
    return tuple(sorted({unit for part in parts for unit in _range(part.strip(), units)}))


def _range(part: str, units: int | None) -> range:
    ends = [end.strip() for end in part.split("-")]
    if len(ends) > 2 or not all(end.isdecimal() for end in ends):
        raise SpecError(f"'{part}' is no unit number and no range; {_FORM}.")
    first, last = int(ends[0]), int(ends[-1])
    if first > last:
        raise SpecError(f"The range {part} runs backwards; write {last}-{first}.")
    if units is not None and last >= units:
        raise SpecError(f"There is no unit {last}; the units are 0 to {units - 1}.")
    if last >= MOST_UNITS:
        raise SpecError(f"There is no unit {last}; no group has {MOST_UNITS:,} units.")
    return range(first, last + 1)


def numbers_text(units: Sequence[int]) -> str:
    """`0-3,7`: what `parse_numbers` reads."""
    runs = [[u for _, u in run] for _, run in groupby(enumerate(sorted(units)), key=lambda iu: iu[1] - iu[0])]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


_ENTRY = "write GROUP=UNITS, for example L03.query_head=0-3,7"


def parse_units(entries: Iterable[str]) -> Units:
    """Read `L03.query_head=0-3,7`, …; units of a group named twice are put together. Raises SpecError."""
    found: dict[str, set[int]] = {}
    for entry in entries:
        group, equals, numbers = entry.partition("=")
        if not (group.strip() and equals):
            raise SpecError(f"'{entry}' does not say which units of which group; {_ENTRY}.")
        found.setdefault(group.strip(), set()).update(parse_numbers(numbers))
    return checked_units(found)


def units_entries(units: Mapping[str, Sequence[int]]) -> list[str]:
    """What `parse_units` reads."""
    return [f"{group}={numbers_text(numbers)}" for group, numbers in units.items()]


def read_plan_file(path: Path) -> Units:
    """The units in a `plan.json`, or in a JSON object of group id -> unit numbers. Raises SpecError."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"--plan {path} cannot be read: {error}; give a run's plan.json.") from error
    found = checked_units(raw.get("removed", raw) if isinstance(raw, dict) else raw)
    if not found:
        raise SpecError(f"--plan {path} removes nothing; give a plan with at least one unit.")
    return found
