"""A plan's costs are those of the model that is left, counted by building it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from core.errors import NotPrunableError
from core.graph.records import Graph
from core.plan.cost import cost, params_in, with_costs
from core.plan.records import KV_BITS, Cost, PruningPlan, check_plan, cuts, implied
from tests.handmade import FAMILIES, graph_of, random_plan, tiny


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(tiny())


def test_the_last_query_head_takes_its_key_value_unit_along(graph: Graph) -> None:
    assert implied(graph, {"L00.query_head": (0, 2)}) == {"L00.query_head": (0, 2)}
    assert implied(graph, {"L00.query_head": (0, 2, 3)}) == {
        "L00.query_head": (0, 2, 3),
        "L00.kv_group": (1,),
    }


def test_a_key_value_unit_takes_its_query_heads_along(graph: Graph) -> None:
    full = implied(graph, {"L01.kv_group": (0,), "L01.query_head": (2,)})
    assert full == {"L01.kv_group": (0,), "L01.query_head": (0, 1, 2)}


def test_cuts_name_rows_and_columns(graph: Graph) -> None:
    found = cuts(graph, {"L00.query_head": (1,), "L01.ffn_channel": (3, 1)})
    assert sorted(found) == [
        "model.layers.0.self_attn.o_proj.weight", "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.gate_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
    ]  # fmt: skip
    assert found["model.layers.0.self_attn.q_proj.weight"][0].tolist() == list(range(8, 16))
    assert found["model.layers.0.self_attn.o_proj.weight"][1].tolist() == list(range(8, 16))
    assert found["model.layers.1.mlp.down_proj.weight"][1].tolist() == [1, 3]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(4))
def test_cost_equals_counting_the_elements_that_stay(family: str, seed: int) -> None:
    model = tiny(family)
    graph = graph_of(model)
    removed = random_plan(graph, seed, ("query_head", "ffn_channel", "residual_channel"))
    params = macs = 0
    for name, parameter in model.named_parameters():
        stays = np.ones(parameter.shape, dtype=bool)
        for dim, gone in cuts(graph, removed).get(name, {}).items():
            np.moveaxis(stays, dim, 0)[gone] = False
        params += stays.sum()
        macs += stays.sum() * graph.parameters[name].macs_per_token
    found = cost(graph, removed)
    assert (found.params, found.macs_per_token) == (params, macs)


def test_the_cache_shrinks_with_key_value_units_only(graph: Graph) -> None:
    per_unit = (8 + 8) * KV_BITS // 8
    assert cost(graph, {}).kv_bytes_per_token == 4 * per_unit
    assert cost(graph, {"L00.query_head": (0, 2)}).kv_bytes_per_token == 4 * per_unit
    assert cost(graph, {"L00.query_head": (0, 1)}).kv_bytes_per_token == 3 * per_unit
    assert cost(graph, {"L00.kv_group": (0,), "L01.kv_group": (1,)}).kv_bytes_per_token == 2 * per_unit


def test_multi_head_models_cache_their_query_heads() -> None:
    graph = graph_of(tiny(heads=4, kv_heads=4))
    assert not graph.of_kind("kv_group")
    assert cost(graph, {"L00.query_head": (0, 1)}).kv_bytes_per_token == 6 * (8 + 8) * 2


def test_parameters_in_scope_count_crossing_slices_once(graph: Graph) -> None:
    attention = 2 * (2 * 32 * 32 + 2 * 16 * 32)  # layers x (q, o and k, v)
    ffn = 2 * 3 * 24 * 32
    assert params_in(graph, graph.of_kind("query_head")) == attention
    assert params_in(graph, graph.of_kind("query_head", "ffn_channel")) == attention + ffn
    everything = sum(int(np.prod(p.shape)) for p in graph.parameters.values())
    assert params_in(graph, graph.of_kind("query_head", "ffn_channel", "residual_channel")) == everything


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ({"L09.query_head": (0,)}, "no group 'L09.query_head'"),
        ({"L00.query_head": (4,)}, "units 0 to 3"),
        ({"L00.query_head": (1, 1)}, "each once"),
        ({"L00.query_head": tuple(range(999))}, r"got \[0, 1, 2, 3, 4, 5, 6, 7, … and 991 more\]\.$"),
        ({"L00.ffn_channel": tuple(range(24))}, "at least one must stay"),
        ({"L00.kv_group": (0,), "L00.query_head": (2, 3)}, "at least one must stay"),
    ],
)
def test_plans_that_cannot_be_carried_out_are_refused(graph: Graph, removed: dict, message: str) -> None:
    with pytest.raises(NotPrunableError, match=message):
        check_plan(graph, removed)


def test_a_group_that_is_not_prunable_says_why(graph: Graph) -> None:
    groups = tuple(replace(g, prunable=False, reason="it is tied to a constant") for g in graph.groups)
    with pytest.raises(NotPrunableError, match="tied to a constant"):
        check_plan(replace(graph, groups=groups), {"L00.query_head": (0,)})


def test_json_round_trip_keeps_everything_and_adds_the_shares(graph: Graph) -> None:
    plan = PruningPlan(
        {"L00.query_head": (0, 1)}, "tiny", "l2", 0.2, kinds=("query_head",), layers="0:1", notes=("n",)
    )
    plan = with_costs(graph, plan, graph.of_kind("query_head"))
    assert PruningPlan.from_json(plan.to_json()) == plan
    assert json.loads(plan.to_json())["sparsity"] == plan.sparsity == 2 * (16 + 8) * 32 / plan.params_in_scope
    assert 0 < plan.sparsity_total < plan.sparsity


@pytest.mark.parametrize(
    "damage",
    [
        {"before": {"params": None, "macs_per_token": None, "kv_bytes_per_token": None}},
        {"removed": {"L00.query_head": ["x"]}},
        {"params_in_scope": "many"},
        {"target": [1]},
    ],
)
def test_a_damaged_plan_is_not_read(damage: dict) -> None:
    document = {**json.loads(PruningPlan({}).to_json()), **damage}
    with pytest.raises(ValueError, match=next(iter(damage))):
        PruningPlan.from_json(json.dumps(document))


def test_an_empty_plan_costs_what_the_model_costs(graph: Graph) -> None:
    plan = with_costs(graph, PruningPlan({}), graph.of_kind("ffn_channel"))
    assert plan.before == plan.after and isinstance(plan.before, Cost)
    assert plan.sparsity == plan.sparsity_total == 0.0
