"""Numbers of the Scores tab: heat map, rank agreement, and every unit by two criteria."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from pruneviz.figures.agreement import (
    _ranks,
    agreement_figure,
    agreement_info,
    pair_info,
    spearman,
    unit_params,
)
from pruneviz.figures.scores import heat_figure, heat_info, kinds_scored
from tests.pruneviz.samples import FFN, HIDDEN, graph

ROWS = {"L00.ffn_channel": np.arange(12, 0, -1.0), "L01.ffn_channel": 10 * np.arange(1, 13.0)}
SCORES = {name: values.astype(np.float32) for name, values in ROWS.items()}


def heat(**changes: Any) -> Any:
    return heat_info(SCORES, graph(), "l2", "ffn_channel", **changes)


def test_only_kinds_with_scores_are_offered() -> None:
    assert kinds_scored(SCORES, graph()) == ["ffn_channel"]
    assert kinds_scored({}, graph()) == []


def test_the_lowest_score_of_a_layer_comes_first_under_its_own_name() -> None:
    info = heat(order="sorted")
    assert info.raw[0].tolist() == sorted(ROWS["L00.ffn_channel"])
    assert info.names[0][0] == "channel 11" and info.names[1][0] == "channel 0"
    assert heat(order="number").names[0][0] == "channel 0"


def test_a_score_is_measured_against_its_layer_or_the_model() -> None:
    own, whole = heat(within="layer"), heat(within="model")
    np.testing.assert_allclose(own.relative[0], own.relative[1])
    np.testing.assert_allclose(whole.relative[1] - whole.relative[0], 1.0)
    assert own.logarithmic and own.relative[0, 5] < 0 < own.relative[0, 6]


def test_many_units_share_cells_and_each_is_counted_once() -> None:
    wide = graph()
    values = {group.id: np.arange(group.units, dtype=np.float32) for group in wide.of_kind("ffn_channel")}
    from pruneviz.figures import scores as module

    info = heat_info(values, wide, "l2", "ffn_channel")
    assert not info.binned
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COLUMNS", 5)
        info = heat_info(values, wide, "l2", "ffn_channel")
    assert info.binned and info.raw.shape == (2, 5)
    assert info.raw[0].tolist() == [1, 4, 6.5, 8.5, 10.5]
    assert info.names[0][0] == "ranks 1–3, lowest first"


@pytest.mark.parametrize("values", [np.zeros(12), np.full(12, -1.0), np.r_[np.zeros(3), np.ones(9)]])
def test_scores_without_a_logarithm_are_drawn_too(values: Any) -> None:
    info = heat_info({"L00.ffn_channel": values.astype(np.float32)}, graph(), "x", "ffn_channel")
    assert np.isfinite(info.relative).all()
    assert heat_figure(info).to_json()


def test_the_map_names_its_layers_and_hovers_the_raw_score() -> None:
    figure = heat_figure(heat(order="number"))
    assert figure.layout.yaxis.ticktext == ("0", "1")
    assert figure.data[0].customdata[0][0][:2].tolist() == ["channel 0", 12.0]


def test_agreement_is_spearmans_correlation() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 6, (3, 40)).astype(np.float32)  # with ties
    np.testing.assert_allclose(spearman(values), spearmanr(values.T).statistic, atol=1e-12)


def test_agreement_inside_layers_is_not_that_of_the_model() -> None:
    up = {"L00.ffn_channel": SCORES["L01.ffn_channel"] / 10, "L01.ffn_channel": SCORES["L01.ffn_channel"]}
    scores = {"a": SCORES, "b": up}
    assert agreement_info(scores, graph(), "ffn_channel", "layer").matrix[0, 1] == pytest.approx(0.0)
    assert agreement_info(scores, graph(), "ffn_channel", "model").matrix[0, 1] > 0.5


def test_a_criterion_without_an_order_agrees_with_nobody() -> None:
    flat = {group: np.ones(12, np.float32) for group in SCORES}
    info = agreement_info({"a": SCORES, "flat": flat}, graph(), "ffn_channel")
    assert np.isnan(info.matrix[0, 1]) and info.matrix[0, 0] == pytest.approx(1)
    assert agreement_figure(info).data[0].z[0][1] is None


def test_every_unit_is_sent_with_both_raw_scores_and_its_price() -> None:
    other = {group: values + 1 for group, values in SCORES.items()}
    sent = pair_info(("l2", SCORES), ("l1", other), graph(), "ffn_channel").to_browser()
    xs, ys = (np.frombuffer(base64.b64decode(sent[side]["data"]), "<f4") for side in ("x", "y"))
    np.testing.assert_array_equal(xs, np.concatenate(list(SCORES.values())))
    np.testing.assert_array_equal(ys, xs + 1)
    assert [(g["id"], g["layer"], g["units"], g["params"]) for g in sent["groups"]] == [
        ("L00.ffn_channel", 0, FFN, 2 * HIDDEN), ("L01.ffn_channel", 1, FFN, 2 * HIDDEN),
    ]  # fmt: skip
    only = pair_info(("l2", SCORES), ("l1", other), graph(), "ffn_channel", layer=1)
    assert [group[0] for group in only.groups] == ["L01.ffn_channel"] and len(only.xs) == FFN


def test_the_price_of_a_unit_is_what_a_plan_counts() -> None:
    from core.plan.cost import cost

    one = graph()
    for group in one.of_kind("ffn_channel", "query_head"):
        saved = cost(one, {}).params - cost(one, {group.id: (0,)}).params
        assert unit_params(one, group) == saved


@pytest.mark.parametrize("seed", range(3))
def test_ranks_share_ties_as_scipy_does(seed: int) -> None:
    from scipy.stats import rankdata

    values = np.random.default_rng(seed).integers(0, 9, 50).astype(np.float32)
    assert np.array_equal(_ranks(values), rankdata(values))
    values[3] = np.nan
    assert np.isnan(_ranks(values)).all() and np.isnan(rankdata(values, nan_policy="propagate")).all()
