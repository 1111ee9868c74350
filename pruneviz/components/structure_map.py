"""The layer x kind map and the grid of one group's units."""

from __future__ import annotations

from typing import Any

from pruneviz.components.base import Canvas


class StructureMap(Canvas):
    """Shows `MapInfo.to_browser()`. Event `pick`, with `group` and `unit` (always 0)."""

    def __init__(self, value: Any = None, **options: Any) -> None:
        super().__init__(("structure_map",), value, **options)


class UnitPicker(Canvas):
    """Shows {"group", "units", "unit", "word"} as a grid. Event `pick`, with `group` and `unit`."""

    def __init__(self, value: Any = None, **options: Any) -> None:
        super().__init__(("unit_picker",), value, **options)
