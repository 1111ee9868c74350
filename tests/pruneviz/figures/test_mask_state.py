from __future__ import annotations

import numpy as np
import pytest

from core.results.masks import MaskState
from pruneviz.figures.mask_state import BINS, mask_figure, mask_html, mask_info


def state(channels: int = 4) -> MaskState:
    heads = np.array([[1.0, 0.0], [0.5, np.nan]], np.float32)
    ffn = np.tile(np.linspace(0, 1, channels, dtype=np.float32), (2, 1))
    stays = {"query_head": heads > 0.6, "ffn_channel": ffn > 0.5}
    return MaskState(3, 8, {"query_head": heads, "ffn_channel": ffn}, stays)


def test_heads_keep_their_places_and_channels_are_sorted():
    info = mask_info(state())
    heads, ffn = info.kinds["query_head"], info.kinds["ffn_channel"]
    assert heads.factors == [[1.0, 0.0], [0.5, None]] and heads.edges == [-0.5, 0.5, 1.5]
    assert (heads.stays, heads.units) == ([1, 0], [2, 1])
    assert ffn.factors[0] == pytest.approx([1, 0.667, 0.333, 0], abs=1e-3) and ffn.stays == [2, 2]


def test_wide_layers_are_drawn_in_few_cells_of_the_same_mean():
    ffn = mask_info(state(1536)).kinds["ffn_channel"]
    assert len(ffn.factors[0]) == BINS and ffn.edges[-1] == 1536
    assert np.mean(ffn.factors[0]) == pytest.approx(0.5, abs=1e-3)
    assert ffn.factors[0] == sorted(ffn.factors[0], reverse=True)


def test_words_and_drawing():
    info = mask_info(state())
    assert "after step 3 of 8" in mask_html(info)
    assert "33.3 % of query heads, 50.0 % of FFN width" in mask_html(info)
    figure = mask_figure(info)
    assert len(figure.data) == 2
    assert (figure.layout.yaxis.dtick, figure.layout.yaxis.range) == (1, (1.5, -0.5))  # whole layers


def test_hidden_channels_are_one_row_below():
    whole = state()
    hidden = np.ones((1, 6), np.float32)
    factors = {**whole.factors, "residual_channel": hidden}
    info = mask_info(MaskState(3, 8, factors, {**whole.stays, "residual_channel": hidden > 0}))
    figure = mask_figure(info)
    assert len(figure.data) == 3 and len(info.kinds["residual_channel"].factors) == 1
    alone = MaskState(1, 2, {"residual_channel": hidden}, {"residual_channel": hidden > 0})
    assert len(mask_figure(mask_info(alone)).data) == 1
