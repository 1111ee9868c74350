"""A Plotly figure that can be clicked, keeps its zoom and follows light and dark."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from pruneviz.components.base import canvas, payload

if TYPE_CHECKING:
    import plotly.graph_objects as go


def library() -> Path:
    """plotly.js as the Python package ships it, without importing the package."""
    spec = importlib.util.find_spec("plotly")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ModuleNotFoundError("plotly is not installed; run `pip install -r requirements.txt`.")
    return Path(next(iter(folders))) / "package_data" / "plotly.min.js"


def plotly_figure(**options: Any) -> gr.HTML:
    """Shows what `figure_payload` returns.

    Events: `pick`, with `x`, `y`, `curve` and `customdata` of the point clicked.
    """
    gr.set_static_paths([library()])
    return canvas("plotly_figure", constants={"libraryFile": str(library())}, **options)


def figure_payload(figure: go.Figure, shows: str, *runs: str) -> str:
    """The figure for the browser, without the default template, which would fix the colours.

    Args:
        shows: what it shows, in a word or two, and of which `runs`: so its downloads are called.

    Colours may be written `var(--pv-attention)`, as in `pruneviz/theme.py`; `layout.meta["description"]` is
    what screen readers say.
    """
    raw = json.loads(figure.to_json())
    raw["layout"].pop("template", None)
    name = re.sub(r"[^\w.-]+", "-", "-".join((shows, *runs)))
    return payload({"data": raw["data"], "layout": raw["layout"], "name": name})
