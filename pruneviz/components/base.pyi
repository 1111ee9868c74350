"""What the components share: their scripts, their style sheet and JSON values."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@lru_cache
def script(*names: str) -> str:
    """`assets/js/shared.js` and these files after it, as one `js_on_load`."""
    return "\n".join((ASSETS / "js" / f"{name}.js").read_text(encoding="utf-8") for name in ("shared", *names))


@lru_cache
def sheet() -> str:
    """The components' style sheet; Gradio confines it to the component it is given to."""
    return (ASSETS / "components.css").read_text(encoding="utf-8")

from gradio.events import Dependency

class Canvas(gr.HTML):
    """An empty element that scripts draw into. The value is data, sent as one JSON string.

    The template is fixed and never holds the value: Gradio compiles templates as code.
    """

    def __init__(self, scripts: tuple[str, ...], value: Any = None, **options: Any) -> None:
        super().__init__(
            value,
            html_template='<div class="pv-wait"></div>',
            css_template=sheet(),
            js_on_load=script(*scripts),
            apply_default_css=False,
            **options,
        )

    def postprocess(self, value: Any) -> str | None:
        """Data -> one JSON string; NaN and infinities become null, which JSON can hold."""
        return None if value is None else json.dumps(_finite(value), allow_nan=False)

    def preprocess(self, payload: Any) -> Any:
        """The data as it was sent."""
        return None if not payload else json.loads(payload)
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


class Panel(gr.HTML):
    """HTML written in Python, everything in it escaped, with the components' style sheet."""

    def __init__(self, value: str = "", **options: Any) -> None:
        super().__init__(value, css_template=sheet(), js_on_load=None, apply_default_css=False, **options)
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value