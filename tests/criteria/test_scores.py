"""Each criterion against a small case by hand and against its definition, written out naively."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from core.capture.statistics import capture
from core.criteria import CRITERIA
from core.criteria.llm_pruner import Aggregation
from core.criteria.registry import GroupView, Part
from core.criteria.scoring import score
from core.errors import DataError, UnknownNameError
from core.graph.records import Graph
from tests.handmade import graph_of, ids, tiny
from tests.naive import naive_products

ALL = ["random", "l1", "l2", "taylor_first"]


def part(values: list[list[float]], share: list[float] | None = None, **statistics: object) -> Part:
    weight = torch.tensor(values).unsqueeze(-1)
    found = {name: torch.tensor(numbers) for name, numbers in statistics.items()}
    shares = torch.tensor(share or [1.0] * len(values))
    return Part("layer1", lambda: weight, found, shares, torch.zeros(weight.shape[:2], dtype=torch.bool))


def view(*parts: Part, **options: str) -> GroupView:
    return GroupView(2, "ffn_channel", parts, np.random.default_rng(0), Aggregation(**options))


def test_magnitudes_by_hand() -> None:
    group = view(part([[3.0, -4.0], [0.0, 1.0]]), part([[12.0], [-2.0]], [1.0, 0.5]))
    assert CRITERIA["l1"].component(group).tolist() == [19.0, 2.0]
    assert CRITERIA["l2"].component(group).tolist() == pytest.approx([13.0, 3.0**0.5])


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("sum", [5.0, 2.0]), ("prod", [6.0**0.5, 1.0]), ("max", [3.0, 1.0])],
)
def test_taylor_by_hand(aggregation: str, expected: list[float]) -> None:
    one = part([[0.0], [0.0]], gradient_first=[[1.0, 2.0], [0.5, 0.5]])
    two = part([[0.0], [0.0]], [0.5, 0.5], gradient_first=[[4.0], [2.0]])
    found = CRITERIA["taylor_first"].component(view(one, two, aggregation=aggregation))
    assert found.tolist() == pytest.approx(expected)


def scored(model: PreTrainedModel, graph: Graph, kinds: tuple[str, ...], seed: int = 0) -> dict:
    statistics = capture(model, graph, ids(model), needs={"gradient_first"}, kinds=kinds)
    return score(model, graph, ALL, statistics, seed=seed)


def naive(model: PreTrainedModel, graph: Graph, group_id: str, unit: int, number) -> float:  # type: ignore[no-untyped-def]
    """Sum of `number(parameter, name)` over the unit's own slices, element by element."""
    total = 0.0
    for member in graph.group(group_id).members:
        values = number(member.parameter, dict(model.named_parameters())[member.parameter])
        for index in member.index()[unit]:
            total += values.select(member.dim, int(index)).sum().item()
    return total


@pytest.mark.parametrize("group_id", ["L00.ffn_channel", "L01.kv_group", "residual_channel"])
def test_scores_equal_the_sum_over_a_units_slices(group_id: str) -> None:
    model = tiny("qwen2")
    graph, tokens = graph_of(model), ids(model)
    kinds = ("ffn_channel", "query_head", "kv_group", "residual_channel")
    scores = scored(model, graph, kinds)
    products = naive_products(model, tokens)
    for unit in range(graph.group(group_id).units):

        def of(number) -> float:  # type: ignore[no-untyped-def]
            return naive(model, graph, group_id, unit, number)  # noqa: B023

        assert scores["l1"][group_id][unit] == pytest.approx(of(lambda n, p: p.detach().abs()), rel=1e-4)
        assert scores["l2"][group_id][unit] == pytest.approx(
            of(lambda n, p: p.detach() ** 2) ** 0.5, rel=1e-4
        )
        expected = of(lambda n, p: (sum(product[n] for product in products) / len(products)).abs())
        assert scores["taylor_first"][group_id][unit] == pytest.approx(expected, rel=1e-3)


def test_a_query_head_has_its_share_of_the_keys_and_values_it_shares() -> None:
    model = tiny()
    graph = graph_of(model)
    scores = scored(model, graph, ("query_head", "kv_group"))
    attention = model.model.layers[0].self_attn
    for head in range(4):
        q, o = (
            attention.q_proj.weight[8 * head : 8 * head + 8],
            attention.o_proj.weight[:, 8 * head : 8 * head + 8],
        )
        rows = slice(8 * (head // 2), 8 * (head // 2) + 8)
        shared = attention.k_proj.weight[rows].abs().sum() + attention.v_proj.weight[rows].abs().sum()
        expected = (q.abs().sum() + o.abs().sum() + shared / 2).item()
        assert scores["l1"]["L00.query_head"][head] == pytest.approx(expected, rel=1e-4)
    for name in ("l1", "taylor_first"):  # so heads add up to their key-value unit
        heads = scores[name]["L00.query_head"].reshape(2, 2).sum(axis=1)
        assert np.allclose(heads, scores[name]["L00.kv_group"], rtol=1e-3)


def test_random_depends_on_seed_and_group_only() -> None:
    model = tiny()
    graph = graph_of(model)
    one, same, other = (score(model, graph, ["random"], None, seed=seed)["random"] for seed in (1, 1, 2))
    alone = score(model, graph, ["random"], None, seed=1, kinds=["ffn_channel"])["random"]
    assert all(np.array_equal(one[g], same[g]) for g in one)
    assert np.array_equal(alone["L01.ffn_channel"], one["L01.ffn_channel"])
    assert not np.array_equal(one["L00.ffn_channel"], other["L00.ffn_channel"])
    assert not np.array_equal(one["L00.ffn_channel"], one["L01.ffn_channel"])


def test_scores_are_float32_and_cover_the_prunable_groups_of_the_kinds() -> None:
    model = tiny()
    graph = graph_of(model)
    scores = score(model, graph, ["l1", "l2"], None, seed=0, kinds=["query_head"])
    assert list(scores) == ["l1", "l2"] and set(scores["l1"]) == {"L00.query_head", "L01.query_head"}
    assert scores["l1"]["L00.query_head"].dtype == np.float32 and scores["l1"]["L00.query_head"].shape == (4,)


def test_a_criterion_without_its_statistics_says_so() -> None:
    model = tiny()
    graph = graph_of(model)
    with pytest.raises(DataError, match="gradient_first"):
        score(model, graph, ["taylor_first"], None, seed=0)
    captured = capture(model, graph, ids(model), needs={"gradient_first"}, kinds=("ffn_channel",))
    with pytest.raises(DataError, match="query_head"):
        score(model, graph, ["taylor_first"], captured, seed=0, kinds=["query_head"])
    with pytest.raises(UnknownNameError, match="Did you mean 'taylor_first'"):
        score(model, graph, ["tailor_first"], None, seed=0)


def test_every_criterion_is_described() -> None:
    assert set(ALL) <= set(CRITERIA.names())
    for entry in CRITERIA:
        assert entry.paper and entry.equation and entry.summary.count(".") >= 1
