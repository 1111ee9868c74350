"""Numbers and drawing of the Sweep tab."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest

from core.results.sweep import Point, Sweep
from pruneviz.figures.axes import perplexity_axis
from pruneviz.figures.sweep import (
    about_html,
    label,
    sweep_figure,
    sweep_info,
    table_csv,
    table_html,
    unmeasured_html,
)


def point(method: str, target: float, ppl: float | None, seed: int = 0, error: str = "") -> Point:
    left = None if error else round(1000 * (1 - target))
    return Point(
        method, target, "local", "none", seed, 16, sparsity=target, sparsity_total=target * 0.8,
        params=left, macs=left, ppl=ppl, seconds=1.0, error=error,
    )  # fmt: skip


POINTS = (
    point("wanda", 0.1, 30.0), point("wanda", 0.4, 90.0), point("l2", 0.1, 40.0), point("l2", 0.4, 900.0),
    point("wanda", 0.1, 31.0, seed=1), point("<b>", 0.99, None, error="At most <0.9> can go."),
)  # fmt: skip


def info(points: tuple[Point, ...] = POINTS) -> Any:
    return sweep_info(Sweep(20.0, 1000, 1000, "bundled", 256, 4096, "calibration", 8, points))


def test_points_that_differ_in_size_alone_make_a_line() -> None:
    found = info()
    lines = {key: [one.ppl for one in points] for key, points in found.series.items()}
    assert lines[("wanda", "local", "none", "", 0, 16)] == [30.0, 90.0]
    assert lines[("wanda", "local", "none", "", 1, 16)] == [31.0] and len(lines) == 3
    assert found.varied == ("method", "seed") and found.wide


def test_the_front_is_drawn_and_every_point_says_everything() -> None:
    figure = sweep_figure(info(), log=True)
    front = next(trace for trace in figure.data if trace.name == "Pareto front")
    assert list(front.y) == [30.0, 90.0] and list(front.x) == [90.0, 60.0]
    wanda = figure.data[0]
    assert wanda.customdata[1][0] == label(POINTS[1])
    hover = wanda.customdata[1][1]
    for part in (
        "wanda",
        "40 %",
        "seed 0",
        "16 windows",
        "perplexity 90.0",
        "600 parameters",
        "Pareto front",
    ):
        assert part in hover, part
    assert figure.layout.yaxis.type == "log" and sweep_figure(info(), log=False).layout.yaxis.type == "linear"
    assert [trace.showlegend for trace in figure.data[:3]] == [True, True, False]


def test_the_dense_models_line_and_note_are_at_its_perplexity() -> None:
    for log, place in ((True, 1.30103), (False, 20.0)):
        layout = sweep_figure(info(), log).layout
        assert layout.shapes[0].y0 == 20.0 and layout.annotations[0].y == pytest.approx(place, abs=1e-4)


def test_signs_are_explained_where_there_are_several() -> None:
    other = replace(POINTS[0], scope="global")
    assert "Signs" not in about_html(info()) and "● local, ◆ global" in about_html(info((*POINTS, other)))
    assert {trace.marker.symbol for trace in sweep_figure(info((*POINTS, other)), True).data[:-1]} == {
        "circle",
        "diamond",
    }


def test_points_that_dropped_blocks_have_a_sign_and_a_column() -> None:
    deep = replace(POINTS[0], drop="layer=1,ffn_block=2")
    shown = info((*POINTS, deep))
    assert "◆ local, without layer=1 and ffn_block=2" in about_html(shown)
    assert "Blocks gone" in table_html(shown) and "Blocks gone" not in table_html(info())
    assert "without layer=1 and ffn_block=2" in label(deep)
    assert ",drop," in table_csv(shown).splitlines()[0]


def test_a_sweep_without_a_point_can_be_drawn() -> None:
    empty = info(())
    assert not empty.wide and sweep_figure(empty, log=False).to_json()
    assert "0 of 8 points" in about_html(empty) and table_html(empty) == ""


def test_without_a_perplexity_words_stand_for_the_chart() -> None:
    refused = info(POINTS[-1:])
    assert unmeasured_html(info(), True) == ""
    assert "No point measured yet" in unmeasured_html(info(()), True)
    assert "8 in all" in unmeasured_html(info(()), True)
    assert "ended before its first" in unmeasured_html(info(()), False)
    assert "No point could be measured" in unmeasured_html(refused, False) and "can go" in table_html(refused)


def test_the_table_holds_what_failed_too_and_nothing_is_markup() -> None:
    page = table_html(info())
    assert page.count("<tr>") == 1 + len(POINTS)
    assert "<b>" not in page and "&lt;b&gt;" in page and "At most &lt;0.9&gt; can go." in page
    assert "1 could not be pruned" in about_html(info())


def test_the_file_holds_every_column() -> None:
    rows = list(csv.DictReader(io.StringIO(table_csv(info()))))
    assert len(rows) == len(POINTS)
    assert rows[0]["pareto"] == "True" and rows[2]["pareto"] == "False" and rows[3]["ppl"] == "900.0"
    page = table_html(info())
    assert unquote(page.split("charset=utf-8,")[1].split('"')[0]) == table_csv(info())


def test_a_logarithmic_axis_is_marked_at_round_numbers() -> None:
    axis = perplexity_axis([26.2, 900.0, None, float("inf")], True)
    assert axis["ticktext"][:5] == ["10", "20", "50", "100", "200"] and axis["tickvals"][3] == 100.0
    assert perplexity_axis([26.2, 2e6], True)["ticktext"][-2:] == ["1 M", "10 M"]
    assert perplexity_axis([], True)["type"] == "log" and "tickvals" not in perplexity_axis([5.0], False)


def test_points_say_how_sure_they_are_and_which_changes_may_be_chance() -> None:
    """Of 16 windows chance stays within 2.13 standard errors; ln(21/20) is 0.049, ln(30/20) is 0.405."""
    near, far = (
        replace(point("wanda", target, ppl), ppl_stderr=1.5, change_stderr=0.03)
        for target, ppl in ((0.1, 21.0), (0.4, 30.0))
    )
    old = point("l2", 0.1, 40.0)
    sweep = Sweep(20.0, 1000, 1000, "bundled", 256, 4096, "calibration", 3, (near, far, old), ppl_stderr=0.9)
    assert [sweep.change(one).verdict for one in sweep.points] == ["noise", "clear", "unknown"]
    found = sweep_info(sweep)
    wanda, l2 = sweep_figure(found, log=True).data[:2]
    assert list(wanda.error_y.array) == [1.5, 1.5] and l2.error_y.array is None
    said = [one[1] for one in wanda.customdata]
    assert "21.0 ± 1.5 (+5.0 %, within noise)" in said[0] and "30.0 ± 1.5 (+50.0 %)" in said[1]
    page = table_html(found)
    for text in ("21.0 ± 1.5", "+5.0 %, within noise", "30.0 ± 1.5", "+50.0 %", "40.0", "+100 %"):
        assert f">{text}<" in page, text
    assert "20.0 ± 0.9 with nothing removed" in about_html(found) and "16 windows" in about_html(found)
    rows = list(csv.DictReader(io.StringIO(table_csv(found))))
    assert (rows[0]["ppl_stderr"], rows[0]["change_stderr"]) == ("1.5", "0.03")
    assert "±" not in about_html(info()) + table_html(info()), "an older sweep has no errors"
