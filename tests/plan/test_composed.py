"""Plans one after another: what is left is counted anew, and several cuts cost what they cost as one."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import NotPrunableError
from core.graph.records import Graph
from core.plan.allocation import allocate
from core.plan.chosen import chosen_plan
from core.plan.composed import composed, staying, what_is_left
from core.plan.cost import cost, params_in
from core.plan.records import PruningPlan
from tests.plan.made import model_graph, of_weights, random_scores

KINDS = ("query_head", "ffn_channel")


def cut(graph: Graph, sparsity: float, seed: int, **how: object) -> PruningPlan:
    return allocate(
        graph, random_scores(graph, seed), sparsity=sparsity, kinds=KINDS, scope="global", biased=True, **how
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def base() -> Graph:
    return of_weights(model_graph())


@pytest.mark.parametrize("seed", range(4))
def test_two_cuts_cost_what_they_cost_as_one(base: Graph, seed: int) -> None:
    first = cut(base, 0.2, seed)
    left = what_is_left(base, first)
    assert cost(left, {}) == first.after
    then = cut(left, 0.25, seed + 10)
    both = composed(base, first, then)
    assert both.before == first.before and both.after == then.after
    assert both.after == cost(base, both.removed, both.biases)
    assert both.params_in_scope == first.params_in_scope == params_in(base, base.of_kind(*KINDS))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_of_what_is_left_is_what_both_plans_leave(base: Graph, seed: int) -> None:
    first = cut(base, 0.2, seed)
    left = what_is_left(base, first)
    then = cut(left, 0.25, seed + 10)
    at_once, in_turns = what_is_left(base, composed(base, first, then)), what_is_left(left, then)
    assert at_once.parameters == in_turns.parameters and at_once.attentions == in_turns.attentions
    for one, other in zip(at_once.groups, in_turns.groups, strict=True):
        if other.prunable:  # heads that were uneven may be even again, which only the first base tells
            indices = [[member.index().tolist() for member in group.members] for group in (one, other)]
            assert indices[0] == indices[1] and one.parent_unit == other.parent_unit, one.id


def test_units_that_stay_keep_their_order_and_their_slices() -> None:
    graph = model_graph(layers=1, heads=6, kv_heads=2, dim=4, ffn=8)
    plan = chosen_plan(graph, {"L00.query_head": (0, 4), "L00.ffn_channel": (1, 2)})
    stays, left = staying(graph, plan), what_is_left(graph, plan)
    assert stays["L00.query_head"].tolist() == [1, 2, 3, 5] and stays["L00.ffn_channel"].tolist() == [
        0,
        *range(3, 8),
    ]
    heads = left.group("L00.query_head")
    assert heads.parent_unit == (0, 0, 1, 1)
    assert [member.index().ravel().tolist() for member in heads.members] == [list(range(16))] * 2
    assert left.parameters["0.down"].shape == (36, 6) and left.attentions[0].heads == 4


def test_key_value_heads_that_are_read_unevenly_do_not_go_but_their_query_heads_do() -> None:
    graph = model_graph(layers=1, heads=6, kv_heads=2)
    left = what_is_left(graph, chosen_plan(graph, {"L00.query_head": (0,)}))
    group = left.group("L00.kv_group")
    assert not group.prunable and "query_head instead" in str(group.reason)
    assert {"kind": "kv_group", "layer": 0, "reason": group.reason} in left.not_prunable
    with pytest.raises(NotPrunableError, match="query_head instead"):
        chosen_plan(left, {"L00.kv_group": (0,)})
    last = chosen_plan(left, {"L00.query_head": (0, 1)})
    both = composed(graph, chosen_plan(graph, {"L00.query_head": (0,)}), last)
    assert both.after == last.after and both.after.kv_bytes_per_token == both.before.kv_bytes_per_token // 2  # type: ignore[union-attr]


def test_a_key_value_head_that_went_takes_its_query_heads_out_of_the_count() -> None:
    graph = model_graph(layers=1, heads=6, kv_heads=3)
    left = what_is_left(graph, chosen_plan(graph, {"L00.kv_group": (1,)}))
    assert left.group("L00.query_head").units == 4 and left.group("L00.query_head").parent_unit == (
        0,
        0,
        1,
        1,
    )
    assert left.group("L00.kv_group").prunable and left.group("L00.kv_group").units == 2


def test_the_whole_plan_tells_of_every_cut(base: Graph) -> None:
    plans = [cut(base, 0.1, 0, method="wifv")]
    for seed, method in enumerate(("wifv", "l2"), start=1):
        left = what_is_left(base, plans[-1])
        plans.append(composed(base, plans[-1], cut(left, 0.1, seed, method=method)))
    assert plans[-1].method == "wifv + l2"
    assert [note.split(",")[0] for note in plans[-1].notes if note.startswith("Cut ")] == [
        "Cut 1: wifv", "Cut 2: wifv", "Cut 3: l2",
    ]  # fmt: skip
    assert plans[-1].target == plans[-1].sparsity and np.isclose(plans[-1].sparsity, 1 - 0.9**3, atol=0.02)
