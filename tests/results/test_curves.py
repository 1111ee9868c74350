"""Kept curves: of a search as they are, of a scan from its perplexities; others are left out."""

from __future__ import annotations

import math

import pytest

from core.results.curves import curves_of_scan, curves_of_search
from core.results.search import GroupCurve, Search
from core.results.sensitivity import Sensitivity
from tests.plan.made import model_graph

GRAPH = model_graph(layers=2)


def point(layer: int, kind: str, ratio: float | None, ppl: float | None) -> dict[str, object]:
    return {"layer": layer, "kind": kind, "ratio": ratio, "ppl": ppl}


def test_a_scan_at_several_shares_is_a_curve_per_layer_and_part() -> None:
    points = [
        point(0, "attention", 3 / 9, 22.0), point(0, "attention", 6 / 9, 40.0), point(1, "ffn", 0.5, 30.0),
        point(1, "ffn", 0.999, None), point(1, "both", 0.5, 99.0), point(7, "ffn", 0.5, 21.0),
    ]  # fmt: skip
    curves = curves_of_scan(Sensitivity(20.0, "a text", 8, 64, "l2", points), GRAPH)
    assert set(curves) == {"L00.query_head", "L01.ffn_channel"}
    assert curves["L00.query_head"].gone == (0, 3, 6)
    assert curves["L00.query_head"].loss == pytest.approx((0, math.log(1.1), math.log(2)))
    assert curves["L01.ffn_channel"].gone == (0, 48, 95) and curves["L01.ffn_channel"].loss[2] == 20.0


def test_a_search_keeps_its_curves_of_groups_that_this_model_has() -> None:
    curves = {"L00.query_head": GroupCurve((0, 3), (0.0, 0.1)), "L09.ffn_channel": GroupCurve((0, 3), (0, 1))}
    search = Search("ifv", "a text", 8, 64, 64, True, curves, ())
    assert curves_of_search(search, GRAPH)["L00.query_head"].loss == (0.0, 0.1)
    assert set(curves_of_search(search, GRAPH)) == {"L00.query_head"}
