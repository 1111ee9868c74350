from __future__ import annotations

from dataclasses import replace

import pytest

from core.plan.cost import cost
from pruneviz.figures.levels import Focus, crumbs_html, focus_of, kind_rows, kinds_html
from tests.pruneviz.samples import FFN, HEAD_DIM, HIDDEN, LAYERS, graph


@pytest.mark.parametrize(
    ("text", "layer", "wanted"),
    [
        ("", "", Focus()),
        ("L01.ffn_channel", "", Focus("L01.ffn_channel")),
        ("L01.ffn_channel/7", "1", Focus("L01.ffn_channel", 7)),
        ("", "1", Focus("L01.query_head")),
        ("L01.ffn_channel/7", "0", Focus("L00.query_head")),  # another layer was chosen elsewhere
        ("L01.ffn_channel/99", "", Focus("L01.ffn_channel")),  # of a larger model
        ("L77.ffn_channel/1", "", Focus()),
        ("nonsense", "55", Focus()),
        ("", "-1", Focus()),
    ],
)
def test_the_focus_in_the_address_is_kept_if_it_fits(text, layer, wanted):
    assert focus_of(graph(), text, layer) == wanted


def test_a_model_without_groups_is_looked_at_as_a_whole():
    assert focus_of(replace(graph(), groups=()), "", "0") == Focus()


def test_every_level_has_a_way_back():
    page = crumbs_html(graph(), Focus("L01.ffn_channel", 3), slices=2)
    assert "2 parameter slices go together." in page
    assert 'data-focus=""' in page and 'data-focus="L01.ffn_channel"' in page
    assert '<li aria-current="page">FFN channel 3</li>' in page and "FFN channel 3, layer 1" in page
    assert "data-focus" not in crumbs_html(graph(), Focus())
    evil = replace(graph(), model="<img src=x>")
    assert "<img" not in crumbs_html(evil, Focus("L01.ffn_channel"))


def test_kinds_are_counted_and_the_reason_is_shown():
    first, *rest = graph().groups
    found = {row.kind: row for row in kind_rows(graph())}
    ffn = found["ffn_channel"]
    assert (ffn.groups, ffn.units, ffn.params) == (LAYERS, LAYERS * FFN, LAYERS * 2 * FFN * HIDDEN)
    assert ffn.one.params == 2 * HIDDEN and ffn.reason == ""
    assert found["kv_group"].one.kv_bytes_per_token == 2 * HEAD_DIM * 2
    fixed = replace(graph(), groups=(replace(first, prunable=False, reason="it is fixed"), *rest))
    page = kinds_html(kind_rows(fixed), cost(fixed, {}))
    assert "not offered: it is fixed" in page and "FFN channels" in page
