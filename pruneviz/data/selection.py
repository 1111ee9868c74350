"""Units chosen by hand, as the page keeps them: one line of text in the address, from any tab into a plan.

The text is `L03.query_head=0-3,7 L04.ffn_channel=5` and stands in `app.url.units`. A tab that offers units
writes `added(text, {group: units})` there; `app.handing_over` lists what opens the New run form with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.errors import SpecError
from core.graph.records import Graph
from core.spec.units import Units, checked_units, parse_units, units_entries


def units_of(text: str | None) -> Units:
    """The units the text names. Raises SpecError."""
    return parse_units((text or "").split())


def text_of(units: Mapping[str, Iterable[int]]) -> str:
    """What `units_of` reads."""
    return " ".join(units_entries(checked_units(units)))


def added(text: str | None, units: Mapping[str, Iterable[int]]) -> str:
    """The text with these units too. Raises SpecError."""
    before = units_of(text)
    return text_of(before | {group: {*before.get(group, ()), *more} for group, more in units.items()})


def fitting(graph: Graph, text: str | None) -> tuple[Units, list[str]]:
    """The units that this model has, and in words what of the text it has not."""
    try:
        units = units_of(text)
    except SpecError as error:
        return {}, [str(error)]
    found, notes = {}, []
    for group_id, numbers in units.items():
        group = graph.by_id.get(group_id)
        inside = tuple(u for u in numbers if group and u < group.units)
        if group is None:
            notes.append(f"This model has no group {group_id}; its units were left out.")
        elif len(inside) < len(numbers):
            notes.append(f"{group_id} has units 0 to {group.units - 1}; higher ones were left out.")
        if inside:
            found[group_id] = inside
    return found, notes
