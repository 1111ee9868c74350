"""Sliced = masked, for random plans; generation with and without cache; gradient checkpointing."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import PreTrainedModel

from core.errors import NotPrunableError
from core.graph.records import Graph
from core.plan.cost import cost
from core.surgery.masks import masked
from core.surgery.operate import operate
from tests.handmade import FAMILIES, graph_of, ids, logits, random_plan, tiny

KINDS = [
    ("query_head",), ("ffn_channel",), ("kv_group", "ffn_channel"), ("residual_channel",),
    ("query_head", "ffn_channel", "residual_channel"),
]  # fmt: skip
RAGGED = {"L00.query_head": (0,), "L01.query_head": (1, 2), "L00.ffn_channel": (3, 4, 5)}


def cut(model: PreTrainedModel, graph: Graph, removed: dict[str, tuple[int, ...]]) -> PreTrainedModel:
    return operate(copy.deepcopy(model), graph, removed)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kinds", KINDS, ids="+".join)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_sliced_equals_masked_for_random_plans(
    family: str, kinds: tuple[str, ...], implementation: str
) -> None:
    model = tiny(family)
    model.set_attn_implementation(implementation)
    graph, tokens = graph_of(model), ids(model)
    for seed in range(4):
        removed = random_plan(graph, seed, kinds)
        with masked(model, graph, removed):
            expected = logits(model, tokens)
        small = cut(model, graph, removed)
        assert (logits(small, tokens) - expected).abs().max() < 1e-4
        assert sum(p.numel() for p in small.parameters()) == cost(graph, removed).params


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (6, 3), (4, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_any_grouping_of_heads(heads: int, kv_heads: int, seed: int) -> None:
    model = tiny(heads=heads, kv_heads=kv_heads, hidden_size=48)
    graph, tokens = graph_of(model), ids(model)
    removed = random_plan(graph, seed, ("query_head",))
    with masked(model, graph, removed):
        expected = logits(model, tokens)
    assert (logits(cut(model, graph, removed), tokens) - expected).abs().max() < 1e-4


def test_an_empty_plan_changes_no_bit() -> None:
    model = tiny()
    graph, tokens = graph_of(model), ids(model)
    before = logits(model, tokens)
    assert torch.equal(logits(operate(model, graph, {"L00.query_head": ()}), tokens), before)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_stay_tied(tied: bool) -> None:
    model = tiny(tie_word_embeddings=tied)
    graph, tokens = graph_of(model), ids(model)
    removed = {"residual_channel": (1, 4, 30)}
    with masked(model, graph, removed):
        expected = logits(model, tokens)
    small = cut(model, graph, removed)
    assert (logits(small, tokens) - expected).abs().max() < 1e-4
    assert (small.lm_head.weight is small.model.embed_tokens.weight) == tied
    assert small.lm_head.in_features == small.model.embed_tokens.embedding_dim == 29


@pytest.mark.parametrize(
    "removed", [RAGGED, {"L00.kv_group": (0,), "L01.query_head": (0, 2)}], ids=["ragged", "even"]
)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_generation_with_cache_equals_generation_without(removed: dict, implementation: str) -> None:
    model = tiny()
    model.set_attn_implementation(implementation)
    small = cut(model, graph_of(model), removed)
    prompt = ids(model, batch=2, length=5)
    kept, recomputed = (
        small.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=12,
            do_sample=False,
            use_cache=cache,
        )
        for cache in (True, False)
    )
    assert torch.equal(kept, recomputed) and kept.shape == (2, 17)


def test_the_cache_holds_one_entry_per_key_value_head_that_stays() -> None:
    model = tiny()
    small = cut(model, graph_of(model), {"L00.query_head": (0,), "L01.query_head": (0, 1, 2)})
    with torch.no_grad():
        cache = small(ids(model), use_cache=True).past_key_values
    assert [layer.keys.shape[1] for layer in cache.layers] == [2, 1]


def test_the_attention_implementation_can_be_switched_afterwards() -> None:
    model = tiny()
    small, tokens = cut(model, graph_of(model), RAGGED), ids(model)
    fused = logits(small, tokens)
    small.set_attn_implementation("eager")
    with torch.no_grad():
        out = small(tokens, use_cache=False, output_attentions=True)
    assert (out.logits - fused).abs().max() < 1e-4
    assert out.attentions[0].shape[1] == 3


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    model = tiny()
    small, tokens = cut(model, graph_of(model), RAGGED), ids(model)
    grads = []
    for checkpointing in (False, True):
        if checkpointing:
            small.activation_checkpointing_enable({"use_reentrant": False})
        small.train()
        small.zero_grad()
        small(tokens, labels=tokens, use_cache=False).loss.backward()
        grads.append({name: p.grad.clone() for name, p in small.named_parameters()})
    assert all(torch.allclose(grads[0][name], grads[1][name], atol=1e-6) for name in grads[0])


def test_modules_say_their_new_size() -> None:
    model = tiny()
    small = cut(model, graph_of(model), RAGGED)
    layer = small.model.layers[0]
    assert (layer.mlp.down_proj.in_features, layer.mlp.gate_proj.out_features) == (21, 21)
    assert layer.self_attn.q_proj.out_features == 24 and layer.self_attn.config.num_attention_heads == 3
    assert small.config.num_attention_heads == 4  # the base config describes the dense model
    assert layer.mlp.intermediate_size == 21


def test_it_works_on_the_meta_device() -> None:
    model = tiny()
    graph = graph_of(model)
    with torch.device("meta"):
        empty = type(model)(model.config)
    small = operate(empty, graph, RAGGED)
    shapes = {name: p.shape for name, p in cut(model, graph, RAGGED).named_parameters()}
    assert {name: p.shape for name, p in small.named_parameters()} == shapes
    assert all(p.is_meta for p in small.parameters())


def test_a_module_that_keeps_a_size_is_named() -> None:
    model = tiny()
    layer = model.model.layers[1].mlp
    layer.forward = lambda x: layer.down_proj(layer.up_proj(x).view(*x.shape[:-1], 24))
    with pytest.raises(NotPrunableError, match=r"model\.layers\.1\.mlp fails with these units cut"):
        operate(model, graph_of(model), {"L01.ffn_channel": (0,)})


def test_a_model_that_computes_something_else_is_refused() -> None:
    model = tiny()
    layer = model.model.layers[1].mlp
    plain = layer.forward
    layer.forward = lambda x: plain(x) * layer.down_proj.weight.shape[1]
    with pytest.raises(NotPrunableError, match=r"model\.layers\.1 does not do with these units cut"):
        operate(model, graph_of(model), {"L01.ffn_channel": (0, 1)})
