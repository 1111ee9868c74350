from __future__ import annotations

import csv
import io

import pytest

from core.results.widths import Widths
from pruneviz.figures.sensitivity import SensitivityInfo
from pruneviz.figures.widths import (
    Profile,
    places,
    profile_of,
    published_profiles,
    summary_html,
    table_csv,
    table_html,
    widths_figure,
    widths_info,
)

LAYERS = [(4, 2, 12), (3, 2, 9), (1, 2, 3)]
FOUND = Widths(
    [dict(zip(("query_heads", "kv_heads", "ffn"), row, strict=True)) for row in LAYERS],
    {"query_heads": 4, "kv_heads": 2, "ffn": 12, "hidden": 16},
    14,
)
SCAN = SensitivityInfo({("attention", 0.5): {0: 90.0, 1: 40.0, 2: 30.0}, ("ffn", 0.5): {0: 20.0, 1: 30.0}})


def run(name: str = "mine") -> Profile:
    return profile_of(name, FOUND)


def test_shares_are_of_the_dense_model():
    assert run().shares("query_heads") == [1.0, 0.75, 0.25]
    assert run().share("ffn") == pytest.approx(2 / 3) and (run().hidden, run().dense_hidden) == (14, 16)


def test_the_papers_tables_are_those_of_llama_7b():
    twenty, fifty = published_profiles().values()
    assert twenty.layers == fifty.layers == 32
    assert twenty.left["query_heads"][0] == 23 and twenty.left["ffn"][0] == 5832 and twenty.hidden == 4070
    assert fifty.left["ffn"][15] is None  # the print has lost a digit there
    assert fifty.name == "LLaMA-7B, 50 % (NutePrune, Table 17)"


def test_layers_of_another_model_stand_at_the_same_depth():
    assert places(32, 3)[0] == 0 and places(32, 3)[-1] == 2 and places(3, 3) == [0, 1, 2]
    assert places(1, 30) == [0.0]


def test_what_was_kept_is_set_against_what_the_model_needs():
    info = widths_info(run(), [], True, SCAN)
    assert info.agreement["query_heads"] == pytest.approx(1.0)
    assert "ffn" not in info.agreement  # two layers are no order
    assert "kept more query heads are those the model needs more (rank correlation +1.00)" in summary_html(
        info
    )
    assert widths_info(run(), [], True, None).agreement == {}


def test_key_value_heads_get_a_panel_only_where_some_went():
    assert widths_info(run(), [], True, None).parts == ["query_heads", "ffn"]
    fewer = Profile("x", {**run().left, "kv_heads": [2, 1, 2]}, run().dense, 16, 16)
    assert "kv_heads" in widths_info(fewer, [], True, None).parts


def test_everything_is_drawn_over_the_runs_layers():
    info = widths_info(run(), [published_profiles()["nuteprune_table_16"]], True, SCAN)
    figure = widths_figure(info)
    assert len(figure.data) == 2 * 3 + 2
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert [list(trace.y) for trace in bars] == [run().shares("query_heads"), run().shares("ffn")]
    (uniform, _) = [trace for trace in figure.data if trace.name == "Uniform"]
    assert list(uniform.y) == [pytest.approx(2 / 3)] * 2
    assert not [t for t in widths_figure(widths_info(run(), [], False, None)).data if t.name == "Uniform"]
    assert "stretched to 3" in summary_html(info) and "14 of 16" in summary_html(info)


def test_the_csv_holds_every_layer_of_every_model():
    rows = list(csv.DictReader(io.StringIO(table_csv(widths_info(run(), [run("other")], True, None)))))
    assert len(rows) == 2 * 3 * 3
    assert {"model": "other", "layer": "2", "part": "ffn", "left": "3", "dense": "12"} in rows
    assert "<b>" not in summary_html(widths_info(run("<b>"), [], True, None))
    assert table_html(widths_info(run(), [], True, None)).count("<tr>") == 4


def test_of_a_scan_at_several_shares_the_largest_stands_below():
    curves = {("ffn", 0.6): {0: 50.0}, ("ffn", 0.15): {0: 21.0}, ("attention", 0.15): {0: 22.0}}
    figure = widths_figure(widths_info(run(), [], False, SensitivityInfo(curves)))
    drawn = {line.name: tuple(line.y) for line in figure.data if line.yaxis == f"y{len(LAYERS)}"}
    assert drawn == {"FFN, 60 % pruned": (50.0,), "Attention, 15 % pruned": (22.0,)}
