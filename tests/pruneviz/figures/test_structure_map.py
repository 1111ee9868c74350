"""The layer x kind map counts what the plan counts."""

from __future__ import annotations

from dataclasses import replace

from core.plan.cost import params_in
from pruneviz.figures.structure_map import about_html, kind_words, map_info, refused_html, touched
from tests.pruneviz.samples import FFN, HEADS, HIDDEN, KV_HEADS, LAYERS, graph


def test_every_group_is_a_cell_with_its_units() -> None:
    info = map_info(graph())
    assert [(c.group, c.layer, c.units) for c in info.cells if c.layer == 0] == [
        ("L00.kv_group", 0, KV_HEADS), ("L00.query_head", 0, HEADS), ("L00.ffn_channel", 0, FFN),
    ]  # fmt: skip
    assert info.kinds == ("query_head", "kv_group", "ffn_channel") and info.layers == tuple(range(LAYERS))


def test_parameters_are_counted_as_plans_count_them() -> None:
    small = graph()
    cells = {cell.group: cell.params for cell in map_info(small).cells}
    for group in small.groups:
        assert cells[group.id] == params_in(small, [group]), group.id
    assert cells["L00.ffn_channel"] == 2 * FFN * HIDDEN
    both = [small.group("L00.ffn_channel"), small.group("L00.kv_group")]
    assert touched(small, both) == params_in(small, both)


def test_the_browser_gets_one_column_per_kind() -> None:
    sent = map_info(graph()).to_browser("L00.kv_group")
    assert sent["selected"] == "L00.kv_group" and sent["most"] == max(c["params"] for c in sent["cells"])
    assert sent["kinds"][0] == {"kind": "query_head", "title": "Query heads", "note": "Type B, attention"}


def test_what_cannot_be_pruned_is_listed_once_with_its_layers() -> None:
    small = graph()
    fixed = [replace(g, prunable=False, reason="<b>constant</b> shape") for g in small.of_kind("ffn_channel")]
    others = [g for g in small.groups if g.kind != "ffn_channel"]
    refused = tuple({"kind": "expert", "layer": layer, "reason": "routing"} for layer in (1, 0))
    info = map_info(replace(small, groups=(*others, *fixed), not_prunable=refused))
    assert info.refused == (
        ("expert", "all layers", "routing"), ("ffn_channel", "all layers", "<b>constant</b> shape"),
    )  # fmt: skip
    page = refused_html(info)
    assert "Experts" in page and "&lt;b&gt;constant" in page and "<b>constant" not in page
    assert refused_html(map_info(small)) == ""


def test_a_map_without_weights_says_so() -> None:
    assert "From the config alone; no weights were read." in about_html(
        map_info(replace(graph(), config_only=True))
    )
    assert "Config only" not in about_html(map_info(graph()))


def test_a_kind_nobody_listed_is_shown_under_its_own_name() -> None:
    assert kind_words("state_channel")[0] == "State channel"
