"""Curves of loss: what each unit costs, and the knapsack over them, against trying every plan."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from core.plan.allocation import allocate
from core.plan.cost import cost
from core.plan.curves import Curve, marginal, widths_of
from tests.plan.made import model_graph, random_scores


def test_widths_are_a_few_and_leave_a_unit() -> None:
    assert widths_of(1536) == (230, 538, 922, 1306)
    assert widths_of(9) == (1, 3, 5, 8) and widths_of(2) == (1,)


def test_units_cost_what_the_lower_convex_hull_says() -> None:
    convex = marginal(Curve((0, 2, 4, 8), (0.0, 0.2, 0.8, 4.8)), 10)
    assert np.diff(convex).min() >= 0
    assert convex[[1, 3, 6]] == pytest.approx([0.15, 0.3 + 0.7 / 6, 1.125])  # slopes 0.1, 0.3, 1 at 1, 3, 6
    bumpy = marginal(Curve((0, 2, 4, 8), (0.0, 2.0, 0.4, 0.8)), 10)  # the point at 2 lies above the hull
    assert np.diff(bumpy).min() >= 0 and bumpy[4] == pytest.approx(0.1, abs=0.02)


def test_near_a_plan_only_units_within_reach_are_up_for_choice() -> None:
    costs = marginal(Curve((3, 5, 7), (0.0, 0.1, 0.4)).near(5, 2), 10)
    assert np.isneginf(costs[:3]).all() and np.isposinf(costs[7:]).all() and np.isfinite(costs[3:7]).all()


def test_the_knapsack_is_as_good_as_trying_every_plan() -> None:
    graph = model_graph(layers=3, ffn=6)
    groups = graph.of_kind("ffn_channel")
    rng = np.random.default_rng(0)
    losses = {g.id: np.concatenate([[0.0], np.cumsum(np.sort(rng.random(5)))]) for g in groups}
    curves = {name: Curve(tuple(range(6)), tuple(loss.tolist())) for name, loss in losses.items()}
    for gone in (3, 6, 9):
        plan = allocate(
            graph, None, sparsity=gone / 18, scope="searched", kinds=("ffn_channel",), curves=curves
        )  # fmt: skip
        counts = {name: len(plan.removed.get(name, ())) for name in losses}
        assert sum(counts.values()) == gone
        loss = sum(losses[name][count] for name, count in counts.items())
        every = itertools.product(range(6), repeat=3)
        sums = [sum(map(np.ndarray.item, losses.values(), each)) for each in every if sum(each) == gone]
        best = min(sums)
        assert loss <= best + 0.1, "units between measured points are spread by the slope, no further off"


def test_a_searched_plan_meets_sparsities_and_budgets_exactly() -> None:
    graph, rng = model_graph(), np.random.default_rng(1)
    groups = graph.of_kind("query_head", "ffn_channel")
    curves = {
        g.id: Curve((0, *widths_of(g.units)), (0.0, *np.cumsum(rng.random(4)).tolist())) for g in groups
    }
    arguments = {"scope": "searched", "curves": curves}
    plan = allocate(graph, random_scores(graph), sparsity=0.4, **arguments)
    assert abs(plan.sparsity - 0.4) * plan.params_in_scope <= 2 * 36
    budget = allocate(graph, random_scores(graph), sparsity=0.0, target="params=-30%", **arguments)
    dense = cost(graph, {}).params
    assert 0.7 * dense - 72 < cost(graph, budget.removed).params <= 0.7 * dense
    counts = {len(units) for group, units in plan.removed.items() if "ffn" in group}
    assert len(counts) > 2, "groups that cost less give more"


def test_without_curves_every_group_loses_alike_and_the_plan_says_so() -> None:
    graph = model_graph()
    plan = allocate(graph, random_scores(graph), sparsity=0.3, scope="searched")
    assert plan.removed == allocate(graph, random_scores(graph), sparsity=0.3).removed
    assert "Made without measurements, so every group loses alike" in " ".join(plan.notes)
