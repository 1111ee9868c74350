"""The layer x kind map and the grid of one group's units."""

from __future__ import annotations

from typing import Any

from pruneviz.components.base import Canvas

from gradio.events import Dependency

class StructureMap(Canvas):
    """Shows `MapInfo.to_browser()`. Event `pick`, with `group` and `unit` (always 0)."""

    def __init__(self, value: Any = None, **options: Any) -> None:
        super().__init__(("structure_map",), value, **options)
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


class UnitPicker(Canvas):
    """Shows {"group", "units", "unit", "word"} as a grid. Event `pick`, with `group` and `unit`."""

    def __init__(self, value: Any = None, **options: Any) -> None:
        super().__init__(("unit_picker",), value, **options)
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component