"""What the components share: their scripts, their style sheet and how data reaches the browser.

Components are made by functions and not as subclasses of `gr.HTML`: for every subclass Gradio writes a
`.pyi` file beside its source, which then hides the source from the type checker.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import gradio as gr

from pruneviz import ASSETS


@lru_cache
def script(*names: str) -> str:
    """`assets/js/shared.js` and these files after it, as one `js_on_load`."""
    files = [ASSETS / "js" / f"{name}.js" for name in ("shared", *names)]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@lru_cache
def sheet() -> str:
    """The components' style sheet; Gradio confines it to the component it is given to."""
    return (ASSETS / "components.css").read_text(encoding="utf-8")


def canvas(*scripts: str, constants: dict[str, Any] | None = None, **options: Any) -> gr.HTML:
    """An empty element that scripts draw into. Its value is what `payload` returns.

    The template is fixed and never holds the value: Gradio compiles templates as code.

    Args:
        constants: name -> value, for the scripts. Written into them, since an element that is first shown
            together with its value has lost the other properties it was made with.
    """
    known = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in (constants or {}).items())
    return gr.HTML(
        html_template='<div class="pv-wait"></div>',
        css_template=sheet(),
        js_on_load=known + script(*scripts),
        apply_default_css=False,
        **options,
    )


def panel(elem_id: str | None, value: str = "", *, styled: bool = False, **options: Any) -> gr.HTML:
    """HTML written in Python, everything in it escaped; it listens to nothing.

    Args:
        styled: whether it needs the components' style sheet beside that of the page.
    """
    if styled:
        options["css_template"] = sheet()
    return gr.HTML(value, elem_id=elem_id, apply_default_css=False, js_on_load=None, **options)


def payload(value: Any) -> str:
    """Data -> one JSON string, which Gradio compares and copies at once; NaN and infinities become null."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
