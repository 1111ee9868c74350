"""What the Structure tab opens with and shows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from core.errors import ArtifactError
from pruneviz.tabs.structure import describe, first_choice
from tests.pruneviz.samples import graph


@pytest.mark.parametrize(
    ("layer", "before", "wanted"),
    [
        ("", "", ("L00.query_head", 0)),
        ("1", "", ("L01.query_head", 0)),
        ("1", "L01.ffn_channel/7", ("L01.ffn_channel", 7)),
        ("0", "L01.ffn_channel/7", ("L00.query_head", 0)),  # another layer was chosen elsewhere
        ("", "L01.ffn_channel/99", ("L00.query_head", 0)),  # of a larger model
        ("", "L77.ffn_channel/1", ("L00.query_head", 0)),
        ("55", "nonsense", ("L00.query_head", 0)),
        ("-1", "", ("L00.query_head", 0)),
    ],
)
def test_the_choice_made_before_is_kept_if_it_fits(layer: str, before: str, wanted: tuple[str, int]) -> None:
    assert first_choice(graph(), layer, before) == wanted


def test_a_model_without_groups_is_an_error_in_words() -> None:
    with pytest.raises(ArtifactError, match="No coupled groups"):
        first_choice(replace(graph(), groups=()), "", "")


def test_the_detail_names_unit_layer_and_slices() -> None:
    chosen, title, grid, number, *_ = describe(graph(), "L01.ffn_channel", 3)
    assert chosen == "L01.ffn_channel/3"
    assert "FFN channel 3, layer 1" in title and "2 parameter slices go together" in title
    assert json.loads(grid) == {"group": "L01.ffn_channel", "units": 12, "unit": 3, "word": "FFN channel"}
    assert number.maximum == 11
