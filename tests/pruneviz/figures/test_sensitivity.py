"""Numbers and drawing of the Sensitivity tab."""

from __future__ import annotations

import math
from urllib.parse import unquote

from core.results.sensitivity import Sensitivity
from pruneviz.figures.sensitivity import (
    SensitivityInfo,
    heads_figure,
    live_info,
    method_html,
    sensitivity_figure,
    sensitivity_info,
    table_csv,
    table_html,
)

POINTS = [
    {"layer": 0, "kind": "attention", "ratio": 0.5, "ppl": 30.0},
    {"layer": 1, "kind": "attention", "ratio": 0.5, "ppl": 25.0},
    {"layer": 0, "kind": "ffn", "ratio": 0.5, "ppl": 500.0},
    {"layer": 1, "kind": "ffn", "ratio": 0.5, "ppl": None},
]


def info(points: list[dict[str, object]] = POINTS) -> SensitivityInfo:
    return sensitivity_info(Sensitivity(20.0, "bundled", 256, 1024, "taylor_first", points))


def test_curves_are_the_points_of_the_record() -> None:
    found = info()
    curves = {("attention", 0.5): {0: 30.0, 1: 25.0}, ("ffn", 0.5): {0: 500.0, 1: math.inf}}
    assert found.curves == curves and found.layers == [0, 1] and found.ratios == [0.5]
    assert found.worst == (("ffn", 0.5, 1), math.inf)


def test_a_wide_spread_asks_for_a_logarithmic_axis() -> None:
    assert info().wide
    assert not info(POINTS[:2]).wide
    assert not SensitivityInfo({}).wide


def test_events_of_a_live_scan_make_the_curve_so_far() -> None:
    series = {"sensitivity.attention.0.5": [(0.0, 30.0), (1.0, 25.0)], "sensitivity.head.3": [(1.0, 21.0)]}
    series["sensitivity.baseline"] = [(0.0, 20.0)]
    found = live_info({**series, "loss": [(0.0, 1.0)]})
    assert found.curves == {("attention", 0.5): {0: 30.0, 1: 25.0}} and found.heads == {(1, 3): 21.0}
    assert found.baseline == 20.0
    assert live_info({}).curves == {} and method_html(found) == ""


def test_how_it_was_measured_is_said() -> None:
    words = method_html(info(POINTS[:3]))
    measured = ("50 %", "taylor_first", "bundled", "4 windows of 256 tokens", "Workbench&#39;s protocol")
    for part in (*measured, "FFN of layer 0", "500", "×25"):
        assert part in words, part


def test_the_figure_draws_finite_points_and_the_baseline() -> None:
    figure = sensitivity_figure(info(), log=True)
    assert [list(trace.y) for trace in figure.data] == [[30.0, 25.0], [500.0]]
    assert figure.layout.yaxis.type == "log" and figure.layout.shapes[0].y0 == 20.0
    assert sensitivity_figure(info()).layout.yaxis.type == "linear"
    assert sensitivity_figure(SensitivityInfo({})).data == ()


def test_every_point_is_in_the_table_and_in_the_file() -> None:
    assert table_csv(info()).splitlines() == [
        "layer,kind,ratio,ppl,baseline_ppl,ppl_stderr,change_stderr",
        "0,attention,0.5,30.0,20.0,,", "1,attention,0.5,25.0,20.0,,",
        "0,ffn,0.5,500.0,20.0,,", "1,ffn,0.5,inf,20.0,,",
    ]  # fmt: skip
    page = table_html(info())
    assert "infinite" in page and "+50.0 %" in page
    assert unquote(page.split("charset=utf-8,")[1].split('"')[0]) == table_csv(info())


def test_curves_at_several_ratios_say_which_they_are() -> None:
    points = [{"layer": 0, "kind": "both", "target": r, "ratio": r, "ppl": 30.0} for r in (0.25, 0.5)]
    figure = sensitivity_figure(info(points))
    assert [trace.name for trace in figure.data] == ["Both, 25 % pruned", "Both, 50 % pruned"]
    assert [trace.line.dash for trace in figure.data] == ["solid", "dash"]
    assert sensitivity_figure(info(points[:1])).data[0].name == "Both pruned at once"
    assert "25 % or 50 %" in method_html(info(points)) and "attention and FFN together" in method_html(
        info(points)
    )


def test_heads_are_a_map_and_a_layer_may_have_fewer() -> None:
    points = [
        {"layer": n, "kind": "head", "ratio": 0.5, "unit": u, "ppl": 20.0 + 10 * u}
        for n, u in ((0, 0), (0, 1), (1, 0))
    ]
    found = info(points)
    assert found.heads == {(0, 0): 20.0, (0, 1): 30.0, (1, 0): 20.0} and found.curves == {}
    assert [list(row) for row in heads_figure(found).data[0].z] == [[1.0, 1.5], [1.0, None]]
    assert "0,head 1,,30.0,20.0,," in table_csv(found)
    assert heads_figure(SensitivityInfo({})).to_json()


def test_points_say_how_sure_they_are_and_which_changes_may_be_chance() -> None:
    """Of 4 windows chance stays within 3.18 standard errors; ln(21/20) is 0.049, ln(30/20) is 0.405."""
    sure = {"ppl_stderr": 1.5, "change_stderr": 0.02}
    points = [
        {"layer": 0, "kind": "ffn", "ratio": 0.5, "target": 0.5, "ppl": 21.0, **sure},
        {"layer": 1, "kind": "ffn", "ratio": 0.5, "target": 0.5, "ppl": 30.0, **sure},
        {"layer": 0, "kind": "head", "ratio": 0.25, "unit": 0, "ppl": 21.0, **sure},
        {"layer": 0, "kind": "head", "ratio": 0.25, "unit": 1, "ppl": 30.0, **sure},
    ]
    record = Sensitivity(20.0, "bundled", 256, 1024, "l2", points, baseline_stderr=0.9)
    found = sensitivity_info(record)
    said = [("21.0 ± 1.5", "+5.0 %, within noise"), ("30.0 ± 1.5", "+50.0 %")]
    assert [tuple(one) for one in sensitivity_figure(found).data[0].customdata] == said
    assert "customdata[0]" in sensitivity_figure(found).data[0].hovertemplate
    assert [tuple(cell) for cell in heads_figure(found).data[0].customdata[0]] == said
    page = table_html(found)
    assert all(f">{part}<" in page for pair in said for part in pair)
    assert "0,ffn,0.5,21.0,20.0,1.5,0.02" in table_csv(found)
    assert "20.0 ± 0.9 with nothing removed" in method_html(found) and "over 4 windows" in method_html(found)
    assert "30.0 ± 1.5 (+50.0 %)" in method_html(found), "the most fragile"


def test_an_older_scan_says_nothing_of_noise() -> None:
    page = table_html(info()) + method_html(info())
    assert "±" not in page and "noise" not in page
    said = [tuple(one) for one in sensitivity_figure(info()).data[0].customdata]
    assert said == [("30.0", "+50.0 %"), ("25.0", "+25.0 %")]
