from __future__ import annotations

from dataclasses import replace

from core.graph.records import Edge
from pruneviz.figures.levels import Step, path_html, path_info
from pruneviz.figures.structure import Link, spreading, structure_info
from tests.pruneviz.samples import graph


def test_pruning_spreads_from_the_trigger_along_links():
    slices = structure_info(graph(), "L00.kv_group", 1).slices
    names = [part.title for part in slices]
    links = tuple(Link(names.index(a), names.index("o"), ()) for a in ("q", "k", "v"))
    order = dict(zip(names, spreading(slices, links), strict=True))
    trigger = next(part.title for part in slices if part.trigger)
    assert order[trigger] == 1 and order["o"] == 2 and sorted(order.values()) == [1, 2, 3, 4]


def test_what_stays_is_not_reached_and_what_no_link_reaches_comes_last():
    info = structure_info(graph(), "L00.query_head", 1)
    order = spreading(info.slices, ())
    assert [o is None for o in order] == [part.stays for part in info.slices]
    assert sorted(o for o in order if o) == [1, 2]


def test_the_path_names_parameters_and_tells_repeated_operations_once():
    edge = Edge(
        "layer0.up.weight", "layer0.down.weight", ("aten.mul", "aten.mul", "aten._softmax", "aten.mm")
    )
    steps = path_info(replace(graph(), edges=(edge,)), "layer0.up.weight", "layer0.down.weight")
    assert steps == [
        Step("parameter", "layer0.up.weight"), Step("operation", "mul", 2), Step("operation", "softmax"),
        Step("operation", "mm"), Step("parameter", "layer0.down.weight"),
    ]  # fmt: skip
    page = path_html(steps, "a", "b")
    assert "mul ×2" in page and "Path of 4 operations" in page


def test_no_path_and_no_choice_are_said():
    assert "Choose two parameters" in path_html([], "", "")
    assert "No data flows between &lt;a&gt; and b" in path_html([], "<a>", "b")
    assert path_info(graph(), "layer0.up.weight", "layer1.up.weight") == []
