"""Whole blocks that go first: which, how many, and what units of what is left give besides."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import NotPrunableError, SpecError
from core.plan.allocation import allocate
from core.plan.budgets import taken
from core.plan.cost import cost, params_in
from core.plan.dropping import dropped, summed
from core.plan.records import PruningPlan
from core.spec.budget import budgets_of
from core.spec.depth import drops_of
from core.spec.prune import PruneSpec
from tests.graph.families import graph_of
from tests.plan.made import random_scores

GRAPH = graph_of("gemma3")
KINDS = ("query_head", "ffn_channel")
WORTH = {f"L{at:02d}.{kind}": float((at * 5) % 6) for at in range(6)
         for kind in ("layer", "attention_block", "ffn_block")}  # fmt: skip


def plan_for(drop: str, sparsity: float = 0.4, **more: object) -> PruningPlan:
    return allocate(
        GRAPH, random_scores(GRAPH), sparsity=sparsity, drop=drop, worth=WORTH, kinds=KINDS,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("drop", ["layer=1", "attention_block=2", "layer=1,ffn_block=1"])
def test_blocks_count_towards_the_sparsity(drop: str, scope: str) -> None:
    plan = plan_for(drop, scope=scope)
    scope_of = [group for group in GRAPH.of_kind(*KINDS, *drops_of(drop)) if group.prunable]
    assert plan.params_in_scope == params_in(GRAPH, scope_of)
    unit = 3 * 48
    assert abs(plan.sparsity - 0.4) * plan.params_in_scope <= unit
    gone = {group for group in plan.removed if GRAPH.group(group).kind in drops_of(drop)}
    assert len(gone) == sum(drops_of(drop).values()) and len(plan.removed) > len(gone)
    layers = {GRAPH.group(group).layer for group in gone if group.endswith("layer")}
    assert not any(GRAPH.group(g).layer in layers for g in set(plan.removed) - gone), "nothing goes twice"


def test_with_sparsity_0_blocks_alone_go() -> None:
    assert plan_for("layer=2", 0.0).removed == {"L00.layer": (0,), "L05.layer": (0,)}


def test_those_that_are_worth_least_go_and_of_layers_only_those_named() -> None:
    assert set(dropped(GRAPH, "ffn_block=3", WORTH)) == {f"L0{at}.ffn_block" for at in (0, 5, 4)}
    assert set(dropped(GRAPH, "ffn_block=2", WORTH, "1:4")) == {"L03.ffn_block", "L02.ffn_block"}
    assert set(dropped(GRAPH, "layer=1,ffn_block=1", WORTH)) == {"L00.layer", "L05.ffn_block"}


@pytest.mark.parametrize("target", ["params=-40%", "kv=-50%", "params=-30%,kv=-50%", "size=-40%"])
def test_budgets_hold_with_blocks_and_units_together(target: str) -> None:
    plan = plan_for("layer=1,attention_block=1", target=target)
    for budget in budgets_of(target):
        assert taken(GRAPH, budget, plan.removed) <= budget.most(taken(GRAPH, budget, {}))
    assert {"L00.layer", "L05.attention_block"} <= set(plan.removed)


def test_a_budget_that_blocks_meet_alone_takes_nothing_else() -> None:
    assert plan_for("layer=2", target="params=-1%").removed == {"L00.layer": (0,), "L05.layer": (0,)}


@pytest.mark.parametrize(
    ("drop", "layers", "why"),
    [("layer=6", None, "at most 5 can go"), ("ffn_block=3", "0:2", "at most 2 can go")],
)
def test_more_than_there_are_is_refused(drop: str, layers: str | None, why: str) -> None:
    with pytest.raises(NotPrunableError, match=why):
        dropped(GRAPH, drop, WORTH, layers)


@pytest.mark.parametrize("text", ["layer", "layer=0", "layer=-1", "layers=2", "layer=1,layer=2", "layer=1.5"])
def test_what_says_no_number_of_blocks_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="drop"):
        PruneSpec(drop=text)


@pytest.mark.parametrize(
    "more", [{"scope": "searched"}, {"reconstruct": "pre_pruning"}, {"kind_sparsity": {"ffn_channel": 0.2}}]
)
def test_blocks_go_with_what_does_not_choose_again(more: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="drop"):
        PruneSpec(drop="layer=1", **more)  # type: ignore[arg-type]


def test_scores_of_a_block_are_those_of_its_units() -> None:
    scores = {group: values for group, values in random_scores(GRAPH).items() if "kv_group" not in group}
    worth = summed(GRAPH, scores)
    channels, heads = scores["L02.ffn_channel"], scores["L02.query_head"]
    channels, heads = channels.astype(np.float64), heads.astype(np.float64)
    assert worth["L02.ffn_block"] == pytest.approx(channels.sum())
    assert worth["L02.layer"] == pytest.approx(channels.sum() + heads.sum())
    assert cost(GRAPH, {"L02.layer": (0,)}) != cost(GRAPH, {})
    only = {group: values for group, values in scores.items() if "ffn" in group}
    assert set(summed(GRAPH, only)) == {f"L{at:02d}.ffn_block" for at in range(6)}


def test_a_layer_may_go_where_it_is_all_that_is_in_scope() -> None:
    assert plan_for("layer=1", 0.1, layers="1:2").removed == {"L01.layer": (0,)}
    assert plan_for("layer=1", target="params=-1%", layers="1:2").removed == {"L01.layer": (0,)}
    with pytest.raises(NotPrunableError, match="at most 1 can go, since layers names no more"):
        plan_for("layer=2", layers="1:2")
