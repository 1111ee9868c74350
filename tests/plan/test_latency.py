"""Budgets of time: predicted from what was timed, met by less than a step, and refused with the least."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from core.errors import NotPrunableError, SpecError
from core.graph.records import Graph, Group
from core.plan.allocation import allocate
from core.plan.curves import Curve, widths_of
from core.plan.latency import Machine, Timings, fingerprint
from core.plan.records import PruningPlan
from core.spec.budget import Reads, budgets_of, latency_of, typed, without_latency
from core.spec.prune import PruneSpec
from tests.plan.made import model_graph, random_scores

GRAPH = model_graph()
MACHINE = Machine("here", "a processor", 2, "float32", "sdpa", "2.13.0")
#: Channels save 40 of 100 ms at most, heads 30, whole attention blocks 36 and FFN blocks 44.
TIMINGS = Timings(
    fingerprint(GRAPH), "1x128", 1, MACHINE, 1.0, 100.0, 2.0,
    {"ffn_channel": ((0.5, 10.0), (1.0, 40.0)), "query_head": ((0.5, 20.0), (1.0, 30.0))},
    {"attention_block": 36.0, "ffn_block": 44.0},
)  # fmt: skip


def plan_for(target: str, **more: object) -> PruningPlan:
    arguments = {"sparsity": 0.2, "target": target, "timings": TIMINGS} | more
    return allocate(GRAPH, random_scores(GRAPH), **arguments)  # type: ignore[arg-type]


def with_blocks(graph: Graph) -> Graph:
    """The graph with attention and FFN blocks whose members are those of its groups."""
    blocks = [
        Group(f"L{g.layer:02d}.{kind}", kind, g.layer, 1, g.members)
        for g in graph.groups
        for kind in [{"kv_group": "attention_block", "ffn_channel": "ffn_block"}.get(g.kind)]
        if kind
    ]
    return replace(graph, groups=(*graph.groups, *blocks))


def test_a_time_between_two_that_were_measured_lies_on_the_line_between() -> None:
    ffn = {f"L{at:02d}.ffn_channel": tuple(range(72)) for at in range(6)}  # 75 % of 96
    heads = {"L02.query_head": tuple(range(4))}  # 4 of 9 in a sixth of the layers
    assert TIMINGS.predicted(GRAPH, {}) == 100.0
    assert TIMINGS.predicted(GRAPH, ffn) == pytest.approx(75.0)
    assert TIMINGS.predicted(GRAPH, ffn | heads) == pytest.approx(75.0 - 20 / 6 * (4 / 9) / 0.5)


def test_blocks_that_go_save_what_they_take_and_units_inside_them_no_more() -> None:
    graph = with_blocks(GRAPH)
    gone = {"L01.ffn_block": (0,), "L01.ffn_channel": (0, 1, 2)}
    assert TIMINGS.predicted(graph, gone) == pytest.approx(100 - 44 / 6)
    assert TIMINGS.predicted(graph, {"L01.attention_block": (0,)}) == pytest.approx(100 - 36 / 6)


@pytest.mark.parametrize("scope", ["local", "global", "searched"])
@pytest.mark.parametrize("target", ["latency=80ms@1x128", "latency=-35%", "latency=0.06s@1x128"])
def test_a_time_is_met_by_less_than_a_step(target: str, scope: str) -> None:
    groups = GRAPH.of_kind("query_head", "ffn_channel")
    curves = {g.id: Curve((0, *widths_of(g.units)), (0.0, 0.1, 0.3, 0.7, 1.5)) for g in groups}
    plan = plan_for(target, scope=scope, curves=curves)
    (budget,) = budgets_of(target)
    most = budget.most(100.0)
    # A channel saves at most 60 ms over all 576 of them, a head 40 ms over 54.
    assert most - 0.8 < TIMINGS.predicted(GRAPH, plan.removed) <= most + 1e-9


def test_a_time_beside_another_budget_holds_with_it_and_with_biases() -> None:
    plan = plan_for("latency=-10%,params=-40%", biased=True)
    assert plan.before and plan.after and plan.after.params <= 0.6 * plan.before.params
    assert TIMINGS.predicted(GRAPH, plan.removed) <= 90


def test_a_time_out_of_reach_says_the_least() -> None:
    with pytest.raises(NotPrunableError, match="out of reach") as told:
        plan_for("latency=20ms@1x128")
    least = re.search(r"the least is (latency=[\d.]+ms@1x128)", str(told.value))
    assert least, told.value
    assert plan_for(least[1]).removed


def test_a_time_that_the_model_has_and_a_machine_that_was_not_timed_are_told() -> None:
    with pytest.raises(NotPrunableError, match="takes latency=100ms@1x128 as it is"):
        plan_for("latency=120ms@1x128")
    with pytest.raises(NotPrunableError, match="needs times of this model on this machine"):
        plan_for("latency=80ms@1x128", timings=None)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("latency=30@1x128", "in ms or s"),
        ("latency=30ms@1", "prompts x tokens"),
        ("latency=30ms@0x128", "prompts x tokens"),
        ("params=1M@1x128", "write params=1M"),
        ("latency=3ms,latency=4ms@2x8", "two budgets of latency"),
    ],
)
def test_a_time_that_cannot_be_read_is_refused(target: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        budgets_of(target)


def test_a_time_is_read_and_written_alike() -> None:
    budget = latency_of("params=-10%,latency=1.5s@4x256+64")
    assert budget and (budget.amount, budget.reads) == (1500.0, Reads(4, 256, 64))
    assert typed(budget, 31.234, up=True) == "latency=31.24ms@4x256+64"
    assert without_latency("latency=3ms,params=-10%") == "params=-10%"


def test_hidden_channels_have_no_time_of_their_own() -> None:
    with pytest.raises(SpecError, match="hidden channels are not timed"):
        PruneSpec(kinds=("residual_channel",), target="latency=-10%")
