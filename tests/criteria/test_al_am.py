"""FLAP's AL-AM written out from its release in float64, on a grouped-query model; and what it cannot rank."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.capture.statistics import STATISTICS, capture
from core.criteria.flap import al_am
from core.criteria.scoring import score, score_units
from core.errors import SpecError
from core.plan.allocation import allocate
from core.plan.cost import cost, params_in
from core.results.scores import ranked_by
from tests.criteria.case import HEADS, KINDS, SHARED, WIDTH, case, found, read_by
from tests.criteria.test_forward_only import forward_only

BLOCK = ("query_head", "ffn_channel")


def released(metric: str, heads: int) -> dict[str, np.ndarray]:
    """Attention squared, both standardised over the channels of a layer, a head the mean of its channels."""
    model, _, tokens = case()
    values: dict[str, np.ndarray] = {}
    for at, layer in enumerate(model.model.layers):
        for name, reader, group in (
            ("self_attn.o_proj", layer.self_attn.o_proj, "query_head"),
            ("mlp.down_proj", layer.mlp.down_proj, "ffn_channel"),
        ):
            x = read_by(model, tokens, f"model.layers.{at}.{name}").astype(np.float64)
            channels = forward_only(metric, x, reader.weight.detach().double().numpy())
            if group == "query_head":
                channels = channels**2
            z = (channels - channels.mean()) / channels.std(ddof=1)
            values[f"L{at:02d}.{group}"] = z.reshape(heads, -1).mean(axis=1) if "head" in group else z
    return values


def ours(metric: str) -> dict[str, np.ndarray]:
    model, graph, tokens = case()
    statistics = capture(model, graph, tokens, needs=set(STATISTICS), kinds=KINDS)
    return score(model, graph, [metric], statistics, seed=0, scopes=("al_am",))[ranked_by(metric, "al_am")]


@pytest.mark.parametrize("metric", ["wifv", "ifv", "wifn"])
def test_scores_are_those_of_the_release(metric: str) -> None:
    scores = ours(metric)
    for group, expected in released(metric, HEADS).items():
        assert np.allclose(scores[group], expected, rtol=0, atol=1e-5), group
    assert not np.allclose(scores["L00.query_head"], found(metric)["L00.query_head"], rtol=0.1)


@pytest.mark.parametrize("taken", [1, 7, 16, 25])
def test_units_of_all_kinds_go_from_one_list_by_what_they_cost(taken: int) -> None:
    _, graph, _ = case()
    values = released("wifv", HEADS)
    ranked = sorted((float(v), group, unit) for group, row in values.items() for unit, v in enumerate(row))
    expected: dict[str, list[int]] = {}
    for _, group, unit in ranked[:taken]:
        expected.setdefault(group, []).append(unit)
    first = {group: tuple(sorted(units)) for group, units in expected.items()}
    gone = cost(graph, {}).params - cost(graph, first).params
    target = gone / params_in(graph, [group for group in graph.of_kind(*BLOCK) if group.prunable])
    plan = allocate(graph, ours("wifv"), sparsity=target, scope="al_am", kinds=BLOCK)
    assert plan.removed == first
    assert taken < 25 or {"L00.query_head", "L00.ffn_channel"} <= set(first)


def test_a_key_value_group_is_standardised_over_the_channels_of_all_its_heads() -> None:
    model, _, tokens = case()
    x = read_by(model, tokens, "model.layers.1.self_attn.o_proj").astype(np.float64)
    weight = model.model.layers[1].self_attn.o_proj.weight.detach().double().numpy()
    channels = forward_only("wifv", x, weight) ** 2
    z = ((channels - channels.mean()) / channels.std(ddof=1)).reshape(-1, WIDTH * SHARED).mean(axis=1)
    assert np.allclose(ours("wifv")["L01.kv_group"], z, atol=1e-5)


def test_equal_channels_do_not_stand_out() -> None:
    for shape in ((3, 2), (1, 1)):
        assert al_am(torch.full(shape, 2.5), "query_head").tolist() == [0.0] * shape[0]


def test_criteria_that_score_units_as_a_whole_are_refused() -> None:
    model, graph, tokens = case()
    with pytest.raises(SpecError, match=r"not scored by l2; take a method that scores them .*wifv"):
        score_units(model, graph, "l2", scope="al_am")
    whole = score_units(model, graph, "wifv", tokens)
    with pytest.raises(SpecError, match=r"scope al_am takes scores of mean zero .*score_units"):
        allocate(graph, whole, sparsity=0.2, scope="al_am")
    ranked = score_units(model, graph, "wifv", tokens, scope="al_am")
    assert allocate(graph, ranked, sparsity=0.2, scope="al_am").removed
