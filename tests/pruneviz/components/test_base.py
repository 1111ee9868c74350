"""What every component sends to the browser."""

from __future__ import annotations

import json
import math

import plotly.graph_objects as go

from pruneviz import ASSETS
from pruneviz.components.base import payload, script, sheet
from pruneviz.components.head_explorer import head_explorer
from pruneviz.components.plotly_figure import figure_payload, library, plotly_figure
from pruneviz.components.structure_map import structure_map, unit_picker


def test_numbers_that_json_cannot_hold_become_null() -> None:
    sent = payload({"a": [1.5, math.nan, math.inf], "b": ("x", {"c": -math.inf})})
    assert json.loads(sent) == {"a": [1.5, None, None], "b": ["x", {"c": None}]}


def test_a_template_never_holds_the_value() -> None:
    for make in (head_explorer, structure_map, unit_picker, plotly_figure):
        component = make()
        assert "value" not in component.html_template and "{" not in component.html_template
        assert script() in component.js_on_load


def test_the_style_sheet_is_no_template() -> None:
    assert not any(mark in sheet() for mark in ("{{", "${", "`", "\\"))


def test_scripts_reach_for_nothing_outside() -> None:
    for file in (ASSETS / "js").glob("*.js"):
        source = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http" not in source and "innerHTML" not in source and "eval(" not in source, file.name
    assert "class HeadGraph" in script("head_graph") and "class HeadGraph" not in script("unit_picker")


def test_a_figure_keeps_its_colour_names_and_loses_the_template() -> None:
    figure = go.Figure(go.Scatter(x=[0, 1], y=[2.0, 3.0], line={"color": "var(--pv-attention)"}))
    sent = json.loads(figure_payload(figure, "sweep", "a run:int8"))
    assert sent["name"] == "sweep-a-run-int8"
    assert sent["data"][0]["line"]["color"] == "var(--pv-attention)" and "template" not in sent["layout"]


def test_the_drawing_library_is_the_installed_one() -> None:
    assert library().name == "plotly.min.js" and library().exists()
    assert json.dumps(str(library())) in plotly_figure().js_on_load  # a late figure has no other way to know
