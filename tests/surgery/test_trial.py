"""Heads whose block has numbers written in its code are refused with the graph, before anything is scored."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.errors import NotPrunableError
from core.graph.discover import discover
from core.plan.records import check_plan
from core.surgery.masks import masked
from core.surgery.operate import operate
from core.surgery.trial import HEADS, heads_tried
from tests.graph.families import graph_of, model_of, shake
from tests.graph.packed import PackedAttention, PackedConfig, PackedForCausalLM, attend
from tests.handmade import ids, logits

DIM = 12


def codegen() -> PreTrainedModel:
    """Its `mp_num` is 4: queries, values and keys are stored in four blocks."""
    sizes = {"vocab_size": 61, "n_embd": 64, "n_layer": 2, "n_head": 8, "n_positions": 64, "n_inner": 40}
    config = AutoConfig.for_model("codegen", **sizes, rotary_dim=4, bos_token_id=1, eos_token_id=2)
    return AutoModelForCausalLM.from_config(config).eval()


def in_blocks(self: PackedAttention, hidden: Tensor, cache: None) -> Tensor:
    """[queries | keys | values] of two heads, of two others: two shards, as they were trained."""
    batch, length, _ = hidden.shape
    shards = self.W_pack(hidden).view(batch, length, 2, 3, 2, DIM)
    query, key, value = (shards[:, :, :, n].flatten(2, 3).transpose(1, 2) for n in range(3))
    return self.o_proj(attend(query, key, value).transpose(1, 2).flatten(2))


def any_width(self: PackedAttention, hidden: Tensor, cache: None) -> Tensor:
    """Four heads, however wide: with one less it runs, and every head has a part of another one."""
    batch, length, _ = hidden.shape
    parts = self.W_pack(hidden).chunk(3, -1)
    query, key, value = (part.view(batch, length, 4, -1).transpose(1, 2) for part in parts)
    return self.o_proj(attend(query, key, value).transpose(1, 2).flatten(2))


def any_number(self: PackedAttention, hidden: Tensor, cache: None) -> Tensor:
    """Heads of 12 channels, however many: what is sound."""
    batch, length, _ = hidden.shape
    parts = self.W_pack(hidden).chunk(3, -1)
    query, key, value = (part.view(batch, length, -1, DIM).transpose(1, 2) for part in parts)
    return self.o_proj(attend(query, key, value).transpose(1, 2).flatten(2))


def with_forward(*forwards: Callable[..., Tensor]) -> PreTrainedModel:
    """A model of custom code, each layer's attention with a forward of its own."""
    torch.manual_seed(0)
    model = PackedForCausalLM(PackedConfig(num_attention_heads=4, num_hidden_layers=len(forwards))).eval()
    for layer, forward in zip(model.layers, forwards, strict=True):
        kind = type(forward.__name__, (PackedAttention,), {"forward": forward})
        layer.self_attn.__class__ = kind
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (codegen, "transformer.h.0.attn has numbers of its own and fails with a head less"),
        (lambda: with_forward(in_blocks), "layers.0.self_attn has numbers of its own and fails"),
        (lambda: with_forward(any_width), "takes heads for others where one is gone"),
    ],
    ids=["codegen", "shards", "any_width"],
)
def test_heads_are_refused_and_all_else_is_cut(make: Callable[[], PreTrainedModel], reason: str) -> None:
    model = make()
    shake(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = heads_tried(model, discover(model))
    heads = graph.of_kind(*HEADS)
    assert heads and not any(group.prunable for group in heads)
    assert all(reason in str(group.reason) for group in heads if group.layer == 0)
    assert {"kind": "query_head", "layer": 0, "reason": heads[0].reason} in graph.not_prunable
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(NotPrunableError, match="numbers of its own"):
        check_plan(graph, {"L00.query_head": (0,)})
    removed = {"L00.ffn_channel": (0, 3), "residual_channel": (5,)}
    with masked(model, graph, removed):
        wanted = logits(model, ids(model))
    assert (logits(operate(copy.deepcopy(model), graph, removed), ids(model)) - wanted).abs().max() < 1e-4


def test_only_the_layers_with_such_code_are_refused() -> None:
    model = with_forward(any_number, any_width, any_number)
    graph = heads_tried(model, discover(model))
    assert {group.layer for group in graph.of_kind(*HEADS) if not group.prunable} == {1}


@pytest.mark.parametrize("family", ["packed", "phi3", "bloom", "falcon_grouped", "gpt2", "llama"])
def test_heads_of_others_are_offered_as_before(family: str) -> None:
    assert heads_tried(model_of(family), graph_of(family)) is graph_of(family)
