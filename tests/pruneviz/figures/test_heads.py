"""Numbers of the Heads tab."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from core.results.similarity import Similarity, similar_heads
from pruneviz.figures.heads import heads_info, source_html
from tests.pruneviz.samples import graph

CLOSE = np.array(
    [[0, 0.1, 0.5, 0.6], [0.1, 0, 0.19, 0.6], [0.5, 0.19, 0, 0.6], [0.6, 0.6, 0.6, 0]], np.float32
)
FAR = np.where(np.eye(4) > 0, 0, 0.7).astype(np.float32)


def similarity(text: str = "bundled") -> Similarity:
    return Similarity(np.stack([CLOSE, FAR]), [3, 5], 4064, text)


def test_pairs_and_candidates_follow_tau_layer_by_layer() -> None:
    def said(tau: float) -> list[tuple[int, int, list[int]]]:
        layers = similar_heads(similarity(), tau)
        return [(each["layer"], each["pairs_below_tau"], each["candidates"]) for each in layers]

    assert said(0.2) == [(3, 2, [0, 1]), (5, 0, [])]
    assert [pairs for _, pairs, _ in said(0.15)] == [1, 0]
    assert [pairs for _, pairs, _ in said(0.0)] == [0, 0]


def test_the_browser_gets_the_raw_numbers() -> None:
    sent = heads_info(similarity(), graph()).to_browser(0.2)
    raw = np.frombuffer(base64.b64decode(sent["divergence"]), "<f4").reshape(2, 4, 4)
    np.testing.assert_array_equal(raw, np.stack([CLOSE, FAR]))
    assert sent["layers"] == [3, 5] and sent["heads"] == 4 and sent["tau"] == 0.2
    assert sent["shares"] == [0, 0, 1, 1]


def test_heads_that_share_keys_are_left_out_where_the_graph_does_not_fit() -> None:
    wide = Similarity(np.zeros((1, 6, 6), np.float32), [0], 1, "bundled")
    assert heads_info(wide, graph()).shares is None
    assert heads_info(wide).shares is None


@pytest.mark.parametrize("text", ["bundled", "<script>alert(1)</script>"])
def test_the_source_is_named_and_harmless(text: str) -> None:
    words = source_html(heads_info(similarity(text)))
    assert "4,064 query positions" in words and "0.83" in words
    assert "<script" not in words


def test_heads_can_be_taken_into_a_plan_where_they_can_be_pruned() -> None:
    matrix = Similarity(np.stack([CLOSE, FAR]), [0, 1], 1, "bundled")
    assert heads_info(matrix, graph()).to_browser(0.2)["groups"] == ["L00.query_head", "L01.query_head"]
    assert heads_info(matrix).to_browser(0.2)["groups"] == ["", ""]
