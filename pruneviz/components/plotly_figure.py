"""A Plotly figure that can be clicked, keeps its zoom and follows light and dark."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from pruneviz.components.base import Canvas

if TYPE_CHECKING:
    import plotly.graph_objects as go


def library() -> Path:
    """plotly.js as the Python package ships it; found without importing the package."""
    found = importlib.util.find_spec("plotly")
    folders = found.submodule_search_locations if found else None
    if not folders:
        raise ModuleNotFoundError("plotly is not installed; run `pip install -r requirements.txt`.")
    return Path(next(iter(folders))) / "package_data" / "plotly.min.js"


class PlotlyFigure(Canvas):
    """Shows a `go.Figure`. Colours may be written `var(--pv-attention)`, as in `pruneviz/theme.py`.

    Events: `pick`, with `x`, `y`, `curve` and `customdata` of the point clicked.
    `figure.layout.meta["description"]` is read out by screen readers.
    """

    def __init__(self, value: go.Figure | None = None, **options: Any) -> None:
        gr.set_static_paths([library()])
        super().__init__(("plotly_figure",), value, library=str(library()), **options)

    def postprocess(self, value: go.Figure | dict[str, Any] | None) -> str | None:
        """The figure as Plotly's own JSON, without the default template, which would fix the colours."""
        if value is None or isinstance(value, dict):
            return super().postprocess(value)
        raw = json.loads(value.to_json())
        raw["layout"].pop("template", None)
        return super().postprocess({"data": raw["data"], "layout": raw["layout"]})
