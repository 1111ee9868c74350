"""Expected sparsity is counted as plans are, grouped-query attention and crossing channels included."""

from __future__ import annotations

import itertools

import pytest
import torch

from core.graph.discover import discover
from core.graph.records import Graph
from core.nuteprune.budget import Budget
from core.nuteprune.finish import staying
from core.nuteprune.gates import Gates
from core.plan.cost import cost, params_in
from tests.graph.families import build
from tests.handmade import graph_of, random_plan, tiny

BLOCK = ("query_head", "ffn_channel")
CASES = [BLOCK, (*BLOCK, "residual_channel"), ("kv_group", "ffn_channel"), ("residual_channel",)]


def setup(graph: Graph, kinds: tuple[str, ...]) -> tuple[Budget, Gates]:
    groups = [group for group in graph.of_kind(*kinds) if group.prunable]
    return Budget(graph, groups), Gates(groups, 0.0)


@pytest.mark.parametrize("kinds", CASES)
@pytest.mark.parametrize("family", ["llama", "llama_mha", "llama_tied", "qwen3", "gpt2", "phi3", "bloom"])
def test_certain_gates_count_what_the_plan_counts(family: str, kinds: tuple[str, ...]) -> None:
    graph = discover(build(family), name=family)
    if "kv_group" in kinds and family in ("llama_mha", "gpt2", "bloom"):
        kinds = ("query_head", "ffn_channel")
    budget, gates = setup(graph, kinds)
    for seed in range(3):
        plan = random_plan(graph, seed, kinds)
        removed = float(budget.removed(staying(gates, plan)))
        assert removed == cost(graph, {}).params - cost(graph, plan).params
    assert budget.params == params_in(graph, graph.of_kind(*kinds))


@pytest.mark.parametrize("kinds", [BLOCK, ("query_head", "residual_channel")])
def test_the_expectation_is_the_mean_over_all_outcomes(kinds: tuple[str, ...]) -> None:
    """Every way four heads and a few channels can fall out, weighted by its probability (Eq. 3)."""
    model = tiny(num_hidden_layers=1, intermediate_size=3, hidden_size=4, vocab_size=8)
    graph = graph_of(model)
    budget, gates = setup(graph, kinds)
    stay = torch.linspace(0.15, 0.9, len(gates.log_alpha), dtype=torch.float64)
    mean = 0.0
    for outcome in itertools.product((False, True), repeat=len(stay)):
        stays = torch.tensor(outcome)
        weight = float(torch.where(stays, stay, 1 - stay).prod())
        mean += weight * float(budget.removed(stays))
    assert float(budget.removed(stay)) == pytest.approx(mean, rel=1e-9)


def test_the_last_head_of_a_key_value_unit_takes_it_along() -> None:
    model = tiny()  # heads 0 and 1 share key-value unit 0; head_dim 8, hidden 32
    graph = graph_of(model)
    budget, gates = setup(graph, BLOCK)
    one, both = (float(budget.removed(staying(gates, {"L00.query_head": heads}))) for heads in ((0,), (0, 1)))
    assert one == 2 * 8 * 32  # its rows of q and its columns of o
    assert both == 2 * one + 2 * 8 * 32  # and the rows of k and v


def test_gradients_say_what_a_unit_costs() -> None:
    graph = graph_of(tiny())
    budget, gates = setup(graph, BLOCK)
    budget.removed(gates.stay()).backward()
    cheap, dear = (gates.split(gates.log_alpha.grad)[name] for name in ("L00.ffn_channel", "L00.query_head"))
    assert bool((cheap < 0).all()) and bool((dear < cheap.min()).all())
