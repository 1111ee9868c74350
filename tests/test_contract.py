"""masked = sliced = reloaded, and generation with a cache = without, for families of every kind.

The groups are discovered, so a family passes only if graph, masks, surgery and export agree about it.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.allocation import allocate
from core.export import load, save
from core.graph.discover import discover
from core.graph.records import Graph
from core.masks import masked
from core.plan import PruningPlan, cost, params_in, with_costs
from core.surgery import operate
from tests.handmade import ids, logits, random_plan

_ENDS = {"vocab_size": 96, "bos_token_id": 1, "eos_token_id": 2}
_PLAIN = {
    **_ENDS, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
_GPT = {**_ENDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 24}
_EXPERTS = {"num_experts_per_tok": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _PLAIN,
    "qwen3": {**_PLAIN, "head_dim": 8},
    "gemma2": {**_PLAIN, "head_dim": 8},
    "gemma3_text": {**_PLAIN, "head_dim": 8},
    "gpt2": _GPT,
    "gptj": {**_GPT, "rotary_dim": 4},
    "gpt_neox": _PLAIN,
    "bloom": {**_ENDS, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "opt": {**_PLAIN, "ffn_dim": 24, "word_embed_proj_dim": 32},
    "phi": _PLAIN,
    "phi3": _PLAIN,
    "glm": {**_PLAIN, "head_dim": 8},
    "olmo2": _PLAIN,
    "stablelm": _PLAIN,
    "starcoder2": _PLAIN,
    "cohere": _PLAIN,
    "nemotron": _PLAIN,
    "mixtral": {**_PLAIN, **_EXPERTS, "num_local_experts": 4},
    "qwen3_moe": {**_PLAIN, **_EXPERTS, "head_dim": 8, "num_experts": 4, "moe_intermediate_size": 12},
}
KINDS = ("query_head", "kv_group", "ffn_channel", "residual_channel")


def build(family: str) -> tuple[PreTrainedModel, Graph]:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family])
    config.initializer_range = 0.2
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.rand_like(parameter) * 0.5 - 0.25)
    return model, discover(model, name=family)


def plans(graph: Graph) -> list[dict[str, tuple[int, ...]]]:
    """Each kind alone, and heads, channels and residual channels together; only what is prunable."""
    together = ("query_head", "ffn_channel", "residual_channel")
    found = []
    for seed, kinds in enumerate([*((kind,) for kind in KINDS), together]):
        prunable = {group.id for group in graph.of_kind(*kinds) if group.prunable}
        plan = {group: units for group, units in random_plan(graph, seed, kinds).items() if group in prunable}
        found += [_even_experts(graph, plan)] if plan else []
    return found


def _even_experts(graph: Graph, plan: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Experts in one stack lose the same number each, though different ones."""
    rng = np.random.default_rng(0)
    even = dict(plan)
    for group in graph.groups:
        if group.id in plan and any(member.at is not None for member in group.members):
            even[group.id] = tuple(sorted(rng.choice(group.units, 5, replace=False).tolist()))
    return even


@pytest.mark.parametrize("family", FAMILIES)
def test_masked_equals_sliced_equals_reloaded(family: str, tmp_path: Path) -> None:
    model, graph = build(family)
    tokens = ids(model)
    dense = logits(model, tokens)
    cases = plans(graph)
    for number, removed in enumerate(cases):
        assert any(removed.values()), "an empty plan would show nothing"
        with masked(model, graph, removed):
            expected = logits(model, tokens)
        assert not torch.allclose(expected, dense, atol=1e-3)
        small = operate(copy.deepcopy(model), graph, removed)
        assert (logits(small, tokens) - expected).abs().max() < 1e-4
        assert sum(p.numel() for p in small.parameters()) == cost(graph, removed).params
        if number < len(cases) - 1:
            continue  # what is saved and generated is the last and fullest plan
        plan = with_costs(graph, PruningPlan(removed, family), graph.of_kind(*KINDS))
        save(small, None, graph, plan, tmp_path / str(number), facts={})
        again = load(tmp_path / str(number))[0]
        assert (logits(again, tokens) - expected).abs().max() < 1e-4
        assert _generated(again, cache=True) == _generated(again, cache=False)
    assert torch.equal(logits(model, tokens), dense)


def _generated(model: PreTrainedModel, *, cache: bool) -> list[list[int]]:
    prompt = ids(model, length=5)
    mask = torch.ones_like(prompt)
    out = model.generate(prompt, attention_mask=mask, max_new_tokens=6, do_sample=False, use_cache=cache)
    return out.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", FAMILIES)
def test_plans_land_within_one_unit_of_the_target(family: str) -> None:
    _, graph = build(family)
    scores = {group.id: np.random.default_rng(0).random(group.units) for group in graph.groups}
    cases = [(kinds, "local") for kinds in (("query_head", "ffn_channel"), ("kv_group", "ffn_channel"))]
    for kinds, scope in [*cases, *((("query_head", "ffn_channel"), s) for s in ("global", "standardised"))]:
        plan = allocate(graph, scores, sparsity=0.3, kinds=kinds, scope=scope)
        assert plan.params_in_scope == params_in(graph, graph.of_kind(*kinds))
        channels = graph.of_kind("ffn_channel")
        unit = max(cost(graph, {}).params - cost(graph, {group.id: (0,)}).params for group in channels)
        unit *= len(channels) // 2  # experts of one stack go together: all of a layer's are one step
        assert abs(plan.sparsity - 0.3) * plan.params_in_scope <= unit
