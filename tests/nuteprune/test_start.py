"""Where gates start: in the order of the scores, whatever their scale, and never out of bounds."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import torch

from core.criteria import CRITERIA
from core.errors import DataError, SpecError
from core.nuteprune.gates import BOUND
from core.nuteprune.start import starting_point
from core.stages.early import check_start
from tests.handmade import graph_of, tiny
from tests.nuteprune.small import settings


def test_scores_of_a_kind_are_compared_over_all_layers() -> None:
    groups = graph_of(tiny()).of_kind("query_head", "ffn_channel")
    rng = np.random.default_rng(0)
    scores = {group.id: rng.lognormal(sigma=0.3, size=group.units) for group in groups}
    scores["L01.ffn_channel"] *= 3.0  # a layer that matters more
    found = starting_point(groups, settings(start=1.0, start_spread=0.5), scores)
    assert isinstance(found, dict)
    channels = ("L00.ffn_channel", "L01.ffn_channel")
    order = np.argsort(np.concatenate([scores[name] for name in channels]))
    values = torch.cat([found[name] for name in channels])
    assert bool((values[torch.from_numpy(order)].diff() >= 0).all())
    assert float(values.mean()) == pytest.approx(1.0, abs=0.05)
    assert float(found["L01.ffn_channel"].mean()) > float(found["L00.ffn_channel"].mean())
    scaled = starting_point(
        groups, settings(start=1.0, start_spread=0.5), {k: v * 7 for k, v in scores.items()}
    )
    assert isinstance(scaled, dict) and torch.allclose(
        scaled["L00.query_head"], found["L00.query_head"], atol=1e-5
    )


def test_no_start_is_out_of_bounds_and_zero_is_no_error() -> None:
    groups = graph_of(tiny()).of_kind("ffn_channel")
    scores = {group.id: np.zeros(group.units) for group in groups}
    scores["L00.ffn_channel"][0] = 1.0
    found = starting_point(groups, settings(start=4.0, start_spread=4.0), scores)
    assert isinstance(found, dict) and float(found["L00.ffn_channel"][0]) == pytest.approx(BOUND)


def test_without_scores_all_start_alike_and_bad_ones_are_refused() -> None:
    groups = graph_of(tiny()).of_kind("ffn_channel")
    assert starting_point(groups, settings(start=1.5), None) == 1.5
    with pytest.raises(DataError, match="finite scores"):
        starting_point(groups, settings(), {group.id: np.full(group.units, np.nan) for group in groups})


def test_in_one_list_the_order_is_that_of_the_scores_whatever_their_kind_and_shape() -> None:
    groups = graph_of(tiny()).of_kind("query_head", "ffn_channel")
    rng = np.random.default_rng(0)
    scores = {group.id: rng.lognormal(sigma=2.0, size=group.units) for group in groups}
    scores["L00.ffn_channel"][:2] = 0.125
    start = settings(start=1.0, start_spread=0.5, start_scope="al_am")
    placed = starting_point(groups, start, scores)
    assert isinstance(placed, dict)
    every = np.concatenate([scores[group.id] for group in groups])
    values = np.concatenate([placed[group.id].numpy() for group in groups])
    assert (np.diff(values[np.argsort(every)]) >= 0).all() and np.ptp(values[every == 0.125]) == 0
    deviate = NormalDist().inv_cdf((sorted(every).index(every[0]) + 0.5) / len(every))
    assert values[0] == pytest.approx(1.0 + 0.5 * np.clip(deviate, -2, 2), rel=1e-5)
    assert np.median(values) == pytest.approx(1.0, abs=0.05)


def test_a_criterion_without_channels_cannot_start_by_what_stands_out() -> None:
    check_start([CRITERIA["ifv"]], "al_am")
    check_start([CRITERIA["taylor_first"]], "kind")
    with pytest.raises(SpecError, match="taylor_first does not score; write start_from=ifv"):
        check_start([CRITERIA["taylor_first"]], "al_am")
