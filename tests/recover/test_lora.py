"""Low-rank updates: which matrices get them, and that merging changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.errors import InputError
from core.graph.discover import discover
from core.graph.records import Graph
from core.recover.lora import attach, merge, target_modules, updates
from core.surgery.operate import operate
from tests.graph.families import build
from tests.handmade import ids, random_plan

#: Fused, sideways and grouped matrices, ragged heads with and without a place to expand them.
FAMILIES = ("llama", "llama_mha", "gpt2", "bloom", "phi3", "gptj", "opt", "mixtral")
KINDS = ("query_head", "ffn_channel")


def pruned(family: str) -> tuple[Any, Any]:
    model = build(family)
    graph = discover(model, name=family)
    there = [g.kind for g in graph.groups if g.prunable]
    plan = random_plan(graph, 3, tuple(kind for kind in KINDS if kind in there and family != "mixtral"))
    return operate(model, graph, plan), graph


def shaken(wrapped: Any) -> None:
    """Updates start at zero, which would hide everything."""
    torch.manual_seed(1)
    with torch.no_grad():
        for value in updates(wrapped).values():
            value.copy_(torch.randn_like(value) * 0.2)


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_equals_unmerged_on_ragged_models(family: str) -> None:
    model, graph = pruned(family)
    tokens = ids(model)
    with torch.no_grad():
        before = model(tokens, use_cache=False).logits
    names = [type(module).__name__ for module in model.modules()]
    wrapped = attach(model, graph, rank=4, alpha=16.0, targets="all", dropout=0.05)
    with torch.no_grad():
        assert torch.allclose(wrapped(tokens, use_cache=False).logits, before, atol=1e-5)
        shaken(wrapped)
        unmerged = wrapped.eval()(tokens, use_cache=False).logits
        merged = merge(wrapped)(tokens, use_cache=False).logits
    assert (unmerged - before).abs().max() > 0.1
    assert (merged - unmerged).abs().max() < 1e-4
    assert [type(module).__name__ for module in model.modules()] == names
    assert all(parameter.requires_grad for parameter in model.parameters()) and not model.training
    assert (
        model.generate(tokens, max_new_tokens=3, do_sample=False, pad_token_id=0).shape[1] > tokens.shape[1]
    )


def test_updates_of_repeated_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where key and value matrices repeat their outputs for ragged heads, so do the updates."""
    monkeypatch.setattr("core.surgery.rewrite.uses_interface", lambda module: False)
    test_merged_equals_unmerged_on_ragged_models("llama")
    model, _ = pruned("llama")
    assert any(hasattr(module, "output_index") for module in model.modules())


def kinds_of(names: list[str]) -> set[str]:
    return {name.rsplit(".", 1)[1] for name in names}


def test_matrices_are_found_through_the_graph() -> None:
    model = build("llama")
    graph = discover(model, name="llama")
    attention = target_modules(model, graph, "attention")
    ffn = target_modules(model, graph, "ffn")
    assert kinds_of(attention) == {"q_proj", "k_proj", "v_proj", "o_proj"} and len(attention) == 8
    assert kinds_of(ffn) == {"gate_proj", "up_proj", "down_proj"} and len(ffn) == 6
    both = target_modules(model, graph, "all")
    assert set(both) == {*attention, *ffn}  # and not the output layer
    gpt2 = build("gpt2")
    graph = discover(gpt2, name="gpt2")
    assert kinds_of(target_modules(gpt2, graph, "ffn")) == {"c_fc", "c_proj"}
    assert len(target_modules(gpt2, graph, "all")) == 8


def test_only_updates_are_trained() -> None:
    model, graph = pruned("llama")
    wrapped = attach(model, graph, rank=2, alpha=16.0, targets="ffn")
    assert updates(wrapped) and all("lora_" in name for name in updates(wrapped))
    assert not any("self_attn" in name for name in updates(wrapped))


def test_a_stack_of_experts_is_refused_with_the_reason() -> None:
    model = build("mixtral")
    graph = discover(model, name="mixtral")
    with pytest.raises(InputError, match="stack of experts"):
        target_modules(model, graph, "ffn")
    assert kinds_of(target_modules(model, graph, "all")) >= {"q_proj", "o_proj"}


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("llama", {"q_proj", "v_proj"}),
        ("llama_mha", {"q_proj", "v_proj"}),  # whose queries and keys are contracted channel by channel
        ("opt", {"q_proj", "v_proj"}),  # which has its keys before its queries
        ("gpt2", {"c_attn"}),
        ("phi3", {"qkv_proj"}),
    ],
)
def test_queries_and_values_are_those_of_every_layer(family: str, names: set[str]) -> None:
    model = build(family)
    graph = discover(model, name=family)
    chosen = target_modules(model, graph, "query_value")
    assert {name.rpartition(".")[2] for name in chosen} == names
    assert len(chosen) == len(names) * len(graph.layer_modules)
    assert target_modules(model, Graph.from_json(graph.to_json()), "query_value") == chosen


def test_a_router_that_says_more_than_a_product_is_left_alone() -> None:
    """Of Llama 4 it is a linear layer by its class, and gives a pair."""
    model = build("llama4")
    names = target_modules(model, discover(model, name="llama4"), "all")
    assert names and not any("router" in name for name in names)
    wrapped = attach(model, discover(model, name="llama4"), rank=2, alpha=2.0, targets="all")
    assert wrapped(ids(model), use_cache=False).logits.isfinite().all()
