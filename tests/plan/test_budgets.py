"""Budgets: each is met by less than a step, the least is said where it cannot be, and sizes are counted."""

from __future__ import annotations

import re

import pytest

from core.errors import NotPrunableError, SpecError
from core.graph.records import Parameter
from core.plan.allocation import allocate
from core.plan.budgets import met, taken
from core.plan.cost import bytes_of, cost, stored_bytes
from core.plan.records import implied
from core.spec.budget import Budget, answer, budgets_of
from tests.plan.made import model_graph, of_weights, random_scores

GRAPH = model_graph()


def plan_for(target: str, **more: object):  # type: ignore[no-untyped-def]
    return allocate(GRAPH, random_scores(GRAPH), sparsity=0.2, target=target, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize(
    ("target", "step"),
    [("params=-20%", 72), ("params=50k", 72), ("macs=-35%", 72), ("size=100KiB", 144), ("kv=-50%", 16)],
)
def test_a_budget_is_met_by_less_than_a_step(target: str, step: int, scope: str) -> None:
    (budget,) = budgets_of(target)
    left = taken(GRAPH, budget, plan_for(target, scope=scope).removed)
    most = budget.most(taken(GRAPH, budget, {}))
    assert most - step < left <= most


def test_of_several_budgets_all_are_met_and_what_helps_none_stays() -> None:
    removed = plan_for("params=-10%,kv=-60%").removed
    before, after = cost(GRAPH, {}), cost(GRAPH, removed)
    assert after.params <= 0.9 * before.params
    assert after.kv_bytes_per_token <= 0.4 * before.kv_bytes_per_token
    assert not any("ffn" in group for group in plan_for("kv=-50%").removed)


@pytest.mark.parametrize(
    ("target", "left", "dense", "words"),
    [
        ("params=110M", 109.876e6, 134.5e6, "params=109.9M of 134.5M, at most 110M asked for"),
        ("params=0.11B", 109.876e6, 134.5e6, "params=0.11B of 0.134B, at most 0.11B asked for"),
        ("params=-20%", 107.2e6, 134.5e6, "params=-20.3% (107.2M of 134.5M), -20% asked for"),
        ("params=80%", 107.2e6, 134.5e6, "params=79.7% (107.2M of 134.5M), 80% asked for"),
        ("size=120MB@q4_0", 119.7e6, 150e6, "size=119.7MB@q4_0 of 150MB, at most 120MB asked for"),
        ("latency=30ms", 27.12, 33.4, "latency=27.12ms@1x128 of 33.4ms, at most 30ms asked for"),
        ("latency=-20%@1x8", 27.12, 33.4, "latency=-18.8%@1x8 (27.12ms of 33.4ms), -20% asked for"),
    ],
)
def test_a_budget_is_answered_in_the_unit_it_was_asked_in(
    target: str, left: float, dense: float, words: str
) -> None:
    (budget,) = budgets_of(target)
    assert answer(budget, left, dense) == words


def test_what_a_plan_leaves_is_told_for_every_budget() -> None:
    plan = plan_for("params=-10%,kv=-60%")
    assert plan.before and plan.after
    params, cache = met(GRAPH, "params=-10%,kv=-60%", plan, None)
    assert (params.asked, params.left, params.before) == (
        "params=-10%",
        plan.after.params,
        plan.before.params,
    )
    assert cache.asked == "kv=-60%" and cache.words.startswith("kv=-6")
    assert met(GRAPH, "", plan, None) == ()


def test_the_least_is_said_as_it_was_asked_and_can_be_asked_for() -> None:
    with pytest.raises(NotPrunableError, match="the least is params=-") as refusal:
        plan_for("params=-99%")
    least = re.search(r"the least is (params=-[\d.]+%), since", str(refusal.value))
    assert least
    plan_for(least[1])


def test_a_size_in_blocks_keeps_widths_that_can_be_packed() -> None:
    removed = plan_for("size=-40%@q4_0").removed
    widths = {96 - len(removed.get(group.id, ())) for group in GRAPH.of_kind("ffn_channel")}
    assert all(width % 32 == 0 for width in widths) and min(widths) < 96
    dense = stored_bytes(GRAPH, {}, "q4_0")
    assert 0.5 * dense < stored_bytes(GRAPH, removed, "q4_0") <= 0.6 * dense


def test_biases_that_are_added_are_within_the_budget() -> None:
    graph = of_weights(GRAPH)
    plan = allocate(graph, random_scores(graph), sparsity=0.2, target="params=-20%", biased=True)
    assert plan.biases and plan.before and plan.after
    assert 0.8 * plan.before.params - 72 < plan.after.params <= 0.8 * plan.before.params


def test_bytes_are_those_of_whole_blocks_of_16_bits_else_and_of_vectors() -> None:
    linear, turned = Parameter((64, 96), 1.0, "Linear", 0), Parameter((64, 90), 1.0, "Conv1D", 0)
    assert bytes_of(linear, (64, 96), "q4_0") == 64 * 96 // 32 * 18  # 16 bytes of numbers, 2 of their scale
    assert bytes_of(linear, (64, 95), "q4_0") == 64 * 95 * 2
    assert bytes_of(turned, (64, 90), "q8_0") == 64 * 90 // 32 * 34
    assert bytes_of(linear, (64,), "q4_0") == 64 * 4 and bytes_of(linear, (64,), "bf16") == 64 * 2
    assert stored_bytes(GRAPH, {}, "f16") == 2 * cost(GRAPH, {}).params


def test_the_cache_counted_with_the_plan_is_the_one_counted_of_its_units() -> None:
    removed = plan_for("kv=-50%").removed
    gone = sum(len(units) for group, units in implied(GRAPH, removed).items() if "kv_group" in group)
    assert cost(GRAPH, removed).kv_bytes_per_token == (18 - gone) * (4 + 4) * 2
    assert gone == 9


@pytest.mark.parametrize("target", ["params=1k", "kv=-90%", "size=100B", "params=-10%,macs=-99%"])
def test_a_budget_out_of_reach_says_the_least_which_can_be_met(target: str) -> None:
    with pytest.raises(NotPrunableError, match="is out of reach: the least is ") as refusal:
        plan_for(target)
    least = re.search(r"the least is (\S+), since", str(refusal.value))
    assert least
    plan_for(least[1])


def test_groups_that_may_lose_nothing_are_left_out_of_what_is_searched() -> None:
    with pytest.raises(NotPrunableError, match="what kinds, layers, max_share and align leave"):
        plan_for("params=-50%", max_share=0.1)


def test_a_budget_that_the_dense_model_meets_is_refused_with_what_it_takes() -> None:
    with pytest.raises(NotPrunableError, match=r"takes params=62.21k as it is, so target params=1M is met"):
        plan_for("params=1M")
    assert plan_for("params=-10%,kv=1GiB").removed  # of two, one that binds is enough


@pytest.mark.parametrize(
    ("text", "amount", "of_dense"),
    [
        ("params=1.2B", 1.2e9, False),
        ("params=-20%", 0.8, True),
        ("params=70%", 0.7, True),
        ("size=8GiB", 8 * 2**30, False),
        ("kv=12kB", 12_000, False),
    ],
)
def test_amounts_are_read(text: str, amount: float, of_dense: bool) -> None:
    assert budgets_of(text) == (Budget(text, text.partition("=")[0], amount, of_dense),)


def test_a_target_names_its_packing() -> None:
    (budget,) = budgets_of("size=8GiB@q4_0")
    assert budget.packing == "q4_0" and budget.most(1.0) == 8 * 2**30
    with pytest.raises(SpecError, match="only a size has a packing"):
        budgets_of("params=1M@q4_0")
    with pytest.raises(SpecError, match="target must name a quantity, got ','"):
        budgets_of(",")
