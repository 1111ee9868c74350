from __future__ import annotations

import pytest

from core.errors import SpecError
from pruneviz.data.selection import added, fitting, text_of, units_of
from tests.pruneviz.samples import FFN, graph


def test_units_come():
    text = added("", {"L01.ffn_channel": (4, 3)})
    text = added(text, {"L01.ffn_channel": range(2), "L00.query_head": [1]})
    assert text == "L00.query_head=1 L01.ffn_channel=0-1,3-4"
    assert units_of(text) == {"L00.query_head": (1,), "L01.ffn_channel": (0, 1, 3, 4)}
    assert units_of(None) == {} and text_of({}) == ""


def test_a_broken_address_is_said():
    with pytest.raises(SpecError, match="'nonsense' does not say which units"):
        units_of("nonsense")
    assert fitting(graph(), "nonsense")[0] == {}


def test_what_the_model_has_not_is_left_out_and_said():
    found, notes = fitting(graph(), f"L00.ffn_channel=1,{FFN} L77.query_head=0 L00.query_head=2")
    assert found == {"L00.ffn_channel": (1,), "L00.query_head": (2,)}
    assert any("L77.query_head" in note for note in notes)
    assert any(f"units 0 to {FFN - 1}" in note for note in notes)
