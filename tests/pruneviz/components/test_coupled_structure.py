"""The drawing holds every slice, marks the trigger and lets no name through as HTML."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from pruneviz.components.coupled_structure import BOX, WIDTH, cost_html, members_html, structure_svg
from pruneviz.figures.structure import Link, StructureInfo, structure_info
from tests.pruneviz.samples import graph

SVG = "{http://www.w3.org/2000/svg}"


def parsed(info: StructureInfo) -> ElementTree.Element:
    page = str(structure_svg(info)).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    return ElementTree.fromstring(page)


def classes(info: StructureInfo) -> list[str]:
    return [group.get("class", "") for group in parsed(info).iter(f"{SVG}g")]


def test_every_slice_is_a_box_and_every_link_a_line() -> None:
    info = structure_info(graph(), "L00.query_head", 1)
    assert sorted(classes(info)) == ["goes", "stays", "stays", "trigger"]
    lines = [path.get("class", "") for path in parsed(info).iter(f"{SVG}path")]
    assert len(lines) == len(info.links) and "edge" in lines and "edge kept" in lines


def test_boxes_lie_inside_the_drawing_and_apart() -> None:
    info = structure_info(graph(), "L00.kv_group", 1)
    places = [group.get("transform", "")[10:-1].split() for group in parsed(info).iter(f"{SVG}g")]
    assert len({tuple(place) for place in places}) == len(info.slices)
    assert all(0 <= float(x) <= WIDTH - BOX for x, _ in places)


def test_many_links_become_one_line_between_columns() -> None:
    info = structure_info(graph(), "L00.kv_group", 1)
    crowded = replace(info, links=tuple(Link(0, 1, ()) for _ in range(10)))
    assert len(list(parsed(crowded).iter(f"{SVG}path"))) == 1


def test_names_are_escaped() -> None:
    info = structure_info(graph(), "L00.ffn_channel", 0)
    name = "<img src=x>"
    evil = replace(info, slices=tuple(replace(s, title=name, parameter=name) for s in info.slices))
    for page in (structure_svg(evil), members_html(evil)):
        assert "<img" not in page and "&lt;img" in page


def test_costs_are_written_out_exactly() -> None:
    info = structure_info(graph(), "L00.kv_group", 1)
    page = cost_html(info)
    assert f"{info.cost.params:,}" in page and f"{info.cost.kv_bytes_per_token:,} B" in page
    assert "Not prunable: fixed." in cost_html(replace(info, prunable=False, reason="fixed"))


def test_the_table_has_one_row_per_slice() -> None:
    info = structure_info(graph(), "L00.query_head", 1)
    page = members_html(info)
    assert page.count("<tr>") == 1 + len(info.slices)
    assert "layer 1, produces, trigger" in page and "shared, stays" in page
