"""masked = sliced = reloaded, and generation with a cache = without, for every family and prunable kind.

The groups are discovered, so a family passes only if graph, masks, surgery and export agree about it.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from core.graph.records import Graph
from core.models.saved import load, save
from core.plan.allocation import allocate
from core.plan.cost import cost, params_in, with_costs
from core.plan.records import PruningPlan
from core.surgery.masks import masked
from core.surgery.operate import operate
from tests.graph.families import CONFIGS, PROMISED, graph_of, model_of
from tests.handmade import ids, logits, random_plan

Removed = dict[str, tuple[int, ...]]
KINDS = ("query_head", "kv_group", "ffn_channel", "residual_channel")
TOGETHER = ("query_head", "ffn_channel", "residual_channel")
#: Its cache changes what the dense model says, too (transformers 5.23).
CACHE_DIFFERS = ("cpmant",)


def plan_of(graph: Graph, kinds: tuple[str, ...], seed: int) -> Removed:
    """Between none and all but one of the units of every prunable group; ragged in every way there is."""
    prunable = {group.id for group in graph.of_kind(*kinds) if group.prunable and group.units > 1}
    plan = {group: units for group, units in random_plan(graph, seed, kinds).items() if group in prunable}
    rng = np.random.default_rng(seed)
    for group in graph.groups:
        # Experts in one stack lose the same number each, though different ones.
        if group.id in plan and any(member.at is not None for member in group.members):
            plan[group.id] = tuple(sorted(rng.choice(group.units, group.units // 3, replace=False).tolist()))
    return plan if any(plan.values()) else plan_of(graph, kinds, seed + 100) if prunable else {}


def ragged(graph: Graph) -> Removed:
    """Key-value heads that keep different numbers of query heads, and other widths in every layer."""
    plan: Removed = {}
    for group in graph.of_kind("query_head", "ffn_channel"):
        if group.prunable and group.units > 2 and not any(member.at is not None for member in group.members):
            gone = 1 + (group.layer or 0) % 2 if group.kind == "query_head" else 3 + 2 * (group.layer or 0)
            plan[group.id] = tuple(range(gone))
    return plan


def cases(family: str) -> dict[str, Removed]:
    """Every kind alone, all together, and a ragged plan; only what is prunable."""
    graph = graph_of(family)
    found = {kind: plan_of(graph, (kind,), seed) for seed, kind in enumerate(KINDS)}
    found |= {"together": plan_of(graph, TOGETHER, 9), "ragged": ragged(graph)}
    return {name: plan for name, plan in found.items() if plan}


@pytest.mark.parametrize("family", CONFIGS)
def test_masked_equals_sliced(family: str) -> None:
    model, graph = model_of(family, None), graph_of(family)
    tokens = ids(model)
    dense = logits(model, tokens)
    for name, removed in cases(family).items():
        with masked(model, graph, removed):
            expected = logits(model, tokens)
        assert not torch.allclose(expected, dense, atol=1e-3), name
        small = operate(copy.deepcopy(model), graph, removed)
        assert (logits(small, tokens) - expected).abs().max() < 1e-4, name
        assert sum(p.numel() for p in small.parameters()) == cost(graph, removed).params, name
    assert torch.equal(logits(model, tokens), dense)


@pytest.mark.parametrize("family", CONFIGS)
def test_reloaded_equals_masked_and_generates(family: str, tmp_path: Path) -> None:
    model, graph = model_of(family, None), graph_of(family)
    tokens = ids(model)
    for name, removed in cases(family).items():
        if name not in ("together", "ragged"):
            continue
        with masked(model, graph, removed):
            expected = logits(model, tokens)
        small = operate(copy.deepcopy(model), graph, removed)
        plan = with_costs(graph, PruningPlan(removed, family), graph.of_kind(*KINDS))
        save(small, None, graph, plan, tmp_path / name, facts={})
        again = load(tmp_path / name)[0]
        assert (logits(again, tokens) - expected).abs().max() < 1e-4, name
        if family not in CACHE_DIFFERS:
            assert _generated(again, cache=True) == _generated(again, cache=False), name


@pytest.mark.parametrize("family", PROMISED)
def test_every_kind_is_offered(family: str) -> None:
    """Multi-query attention has one key-value head, which cannot go; nothing else is missing."""
    missing = set(KINDS) - set(cases(family))
    assert missing <= ({"kv_group"} if graph_of(family).attentions[0].kv_heads == 1 else set())


@pytest.mark.parametrize("family", PROMISED)
def test_gradient_checkpointing_gives_the_same_gradients(family: str) -> None:
    model = model_of(family, None)
    if not model.supports_gradient_checkpointing:
        pytest.skip("this model cannot checkpoint, pruned or not")
    small = operate(copy.deepcopy(model), graph_of(family), cases(family)["together"]).train()
    tokens, found = ids(model), []
    for checkpointing in (False, True):
        if checkpointing:
            small.activation_checkpointing_enable({"use_reentrant": False})
        small.zero_grad()
        torch.manual_seed(0)
        small(tokens, labels=tokens, use_cache=False).loss.backward()
        found.append({name: p.grad.clone() for name, p in small.named_parameters() if p.grad is not None})
    assert found[0] and found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[0])


def _generated(model: PreTrainedModel, *, cache: bool) -> list[list[int]]:
    prompt = ids(model, length=5)
    mask = torch.ones_like(prompt)
    out = model.generate(prompt, attention_mask=mask, max_new_tokens=6, do_sample=False, use_cache=cache)
    return out.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", PROMISED)
def test_plans_land_within_one_unit_of_the_target(family: str) -> None:
    graph = graph_of(family)
    scores = {group.id: np.random.default_rng(0).random(group.units) for group in graph.groups}
    heads = ("query_head", "ffn_channel")
    ways = [(kinds, "local") for kinds in (heads, ("kv_group", "ffn_channel"), ("ffn_channel",))]
    for kinds, scope in [*ways, (heads, "global"), (heads, "standardised")]:
        plan = allocate(graph, scores, sparsity=0.3, kinds=kinds, scope=scope)
        assert plan.params_in_scope == params_in(graph, graph.of_kind(*kinds))
        channels = graph.of_kind("ffn_channel")
        unit = max(cost(graph, {}).params - cost(graph, {group.id: (0,)}).params for group in channels)
        unit *= len(channels) // 2  # experts of one stack go together: all of a layer's are one step
        assert abs(plan.sparsity - 0.3) * plan.params_in_scope <= unit
