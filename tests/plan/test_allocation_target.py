"""Allocation lands on its target: for all kinds, for each, in multiples, with biases counted."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import SpecError
from core.plan.allocation import allocate
from core.plan.cost import cost, params_in
from tests.plan.made import model_graph, of_weights, random_scores


@pytest.mark.parametrize("sparsity", [0.0, 0.01, 0.1, 0.2, 0.37, 0.5, 0.8, 0.85])
@pytest.mark.parametrize(
    "kinds", [("query_head", "ffn_channel"), ("kv_group", "ffn_channel"), ("ffn_channel",)]
)
def test_a_plan_lands_within_one_ffn_channel(sparsity: float, kinds: tuple[str, ...]) -> None:
    graph = model_graph()
    for seed in range(3):
        plan = allocate(graph, random_scores(graph, seed), sparsity=sparsity, kinds=kinds)
        assert abs(plan.sparsity - sparsity) * plan.params_in_scope <= 2 * 36
        assert plan.before is not None and plan.after is not None
        gone = plan.before.params - plan.after.params
        assert gone == cost(graph, {}).params - cost(graph, plan.removed).params
        assert plan.params_in_scope == params_in(graph, graph.of_kind(*kinds))


@pytest.mark.parametrize("sparsity", [0.1, 0.2, 0.5, 0.7])
def test_heads_alone_land_within_one_head_and_its_key_value_slices(sparsity: float) -> None:
    graph = model_graph()
    plan = allocate(graph, random_scores(graph), sparsity=sparsity, kinds=("query_head",))
    assert abs(plan.sparsity - sparsity) * plan.params_in_scope <= 4 * 4 * 36


@pytest.mark.parametrize("scope", ["global", "standardised"])
@pytest.mark.parametrize("sparsity", [0.0, 0.03, 0.2, 0.5, 0.8])
def test_every_scope_lands_within_one_channel_and_leaves_a_unit(scope: str, sparsity: float) -> None:
    graph = model_graph()
    for seed in range(3):
        plan = allocate(graph, random_scores(graph, seed), sparsity=sparsity, scope=scope)
        assert abs(plan.sparsity - sparsity) * plan.params_in_scope <= 2 * 36
        assert all(len(units) < graph.group(group).units for group, units in plan.removed.items())


def test_zero_removes_nothing() -> None:
    plan = allocate(model_graph(), None, sparsity=0.0)
    assert plan.removed == {} and plan.sparsity == 0.0


def test_a_preview_needs_no_scores() -> None:
    graph = model_graph()
    plan = allocate(graph, None, sparsity=0.2)
    assert plan.after is not None and abs(plan.sparsity - 0.2) * plan.params_in_scope <= 72
    assert plan == allocate(graph, None, sparsity=0.2)


def test_each_kind_meets_its_own_target() -> None:
    graph = model_graph()
    targets = {"ffn_channel": 0.3, "query_head": 0.1}
    plan = allocate(graph, random_scores(graph), sparsity=0.9, kind_sparsity=targets)
    totals = {kind: params_in(graph, graph.of_kind(kind)) for kind in targets}
    for kind, target in targets.items():
        units = {g: u for g, u in plan.removed.items() if kind in g}
        gone = cost(graph, {}).params - cost(graph, units).params
        assert abs(gone - target * totals[kind]) <= (72 if kind == "ffn_channel" else 4 * 4 * 36)
    assert plan.target == pytest.approx(sum(targets[k] * totals[k] for k in targets) / sum(totals.values()))
    rest = allocate(graph, random_scores(graph), sparsity=0.2, kind_sparsity={"query_head": 0.0})
    assert all("ffn" in group for group in rest.removed)


@pytest.mark.parametrize("scope", ["local", "global", "standardised"])
@pytest.mark.parametrize("multiple", [8, 32])
def test_widths_that_change_are_multiples_and_heads_are_left_as_heads(scope: str, multiple: int) -> None:
    graph = model_graph()
    plan = allocate(graph, random_scores(graph), sparsity=0.3, scope=scope, multiple=multiple)
    widths = [96 - len(plan.removed.get(group.id, ())) for group in graph.of_kind("ffn_channel")]
    assert all(width % multiple == 0 and width > 0 for width in widths) and min(widths) < 96
    heads = [9 - len(plan.removed.get(group.id, ())) for group in graph.of_kind("query_head")]
    assert any(number % multiple for number in heads)
    assert abs(plan.sparsity - 0.3) * plan.params_in_scope <= multiple * 2 * 36
    assert f"multiples of {multiple}" in plan.notes[-1]


def test_a_group_that_loses_nothing_keeps_a_width_that_is_no_multiple() -> None:
    graph = model_graph(layers=2, ffn=20)
    scores = {"L00.ffn_channel": np.zeros(20), "L01.ffn_channel": np.ones(20)}
    plan = allocate(graph, scores, sparsity=0.1, scope="global", kinds=("ffn_channel",), multiple=8)
    assert {name: len(units) for name, units in plan.removed.items()} == {"L00.ffn_channel": 4}
    with pytest.raises(SpecError, match=r"multiple .* got 7 for L00\.ffn_channel with 4 units"):
        allocate(model_graph(ffn=4), None, sparsity=0.1, multiple=7)


def test_the_target_counts_biases_that_are_added() -> None:
    graph = of_weights(model_graph())
    plan = allocate(graph, random_scores(graph), sparsity=0.3, biased=True)
    assert plan.biases == tuple(f"{at}.{name}.bias" for at in range(6) for name in ("o", "down"))
    assert plan.after is not None
    assert plan.after.params == cost(graph, plan.removed).params + 12 * 36
    assert abs(plan.sparsity - 0.3) * plan.params_in_scope <= 2 * 36
    assert allocate(graph, None, sparsity=0.0, biased=True).biases == ()


def test_torch_is_not_needed() -> None:
    import subprocess
    import sys

    code = (
        "import sys, core.plan.allocation, core.results.similarity; raise SystemExit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
