"""Exact index sets on small models, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from core.graph.discover import discover, discover_config
from core.graph.records import Graph, Group
from tests.graph.families import build, config


def members(group: Group) -> dict[tuple[str, int], np.ndarray]:
    return {(m.parameter, m.dim): m.index() for m in group.members}


@pytest.fixture(scope="module")
def llama() -> Graph:
    return discover(build("llama"), name="llama")


def test_ffn_channels_of_llama(llama: Graph) -> None:
    group = llama.group("L01.ffn_channel")
    mlp = "model.layers.1.mlp"
    found = members(group)
    assert set(found) == {
        (f"{mlp}.gate_proj.weight", 0),
        (f"{mlp}.up_proj.weight", 0),
        (f"{mlp}.down_proj.weight", 1),
    }
    for index in found.values():
        assert index.tolist() == [[i] for i in range(40)]
    assert [m.role for m in group.members] == ["layer1", "layer1", "layer2"]


def test_key_value_groups_of_llama(llama: Graph) -> None:
    found = members(llama.group("L00.kv_group"))
    attn = "model.layers.0.self_attn"
    three_heads, one_head = np.arange(48).reshape(2, 24), np.arange(16).reshape(2, 8)
    expected = {("q", 0): three_heads, ("k", 0): one_head, ("v", 0): one_head, ("o", 1): three_heads}
    assert set(found) == {(f"{attn}.{p}_proj.weight", dim) for p, dim in expected}
    for (projection, dim), index in expected.items():
        assert (found[f"{attn}.{projection}_proj.weight", dim] == index).all()


def test_query_heads_of_llama(llama: Graph) -> None:
    group = llama.group("L00.query_head")
    found = members(group)
    heads = np.arange(48).reshape(6, 8)
    assert set(found) == {
        ("model.layers.0.self_attn.q_proj.weight", 0),
        ("model.layers.0.self_attn.o_proj.weight", 1),
    }
    assert all((index == heads).all() for index in found.values())
    assert (group.parent, group.parent_unit) == ("L00.kv_group", (0, 0, 0, 1, 1, 1))


def test_residual_channels_span_the_whole_model(llama: Graph) -> None:
    group = llama.group("residual_channel")
    found = members(group)
    model = build("llama")
    expected = {
        (name, dim)
        for name, parameter in model.named_parameters()
        for dim, size in enumerate(parameter.shape)
        # q and o are square: their residual side is the other one than the heads'.
        if size == 48 and (name.split(".")[-2], dim) not in {("q_proj", 0), ("o_proj", 1)}
    }
    assert set(found) == expected
    assert all(index.tolist() == [[i] for i in range(48)] for index in found.values())
    assert {norm.statistic for norm in group.norms} == {"rms"} and len(group.norms) == 5


def test_multi_head_takes_keys_values_and_biases_along() -> None:
    group = discover(build("llama_mha"), name="mha").group("L01.query_head")
    attn = "model.layers.1.self_attn"
    expected = {(f"{attn}.{p}_proj.{kind}", 0) for p in "qkv" for kind in ("weight", "bias")}
    assert set(members(group)) == expected | {(f"{attn}.o_proj.weight", 1)}
    assert all((index == np.arange(48).reshape(6, 8)).all() for index in members(group).values())
    assert group.parent is None and group.parent_unit == ()


def test_norms_over_head_dim_belong_to_no_head() -> None:
    graph = discover(build("qwen3"), name="qwen3")
    for kind in ("kv_group", "query_head"):
        group = graph.group(f"L00.{kind}")
        assert group.prunable
        assert not any("norm" in member.parameter for member in group.members)
    assert graph.group("L00.query_head").members[0].width == 10
    assert graph.attentions[0].head_dim == 10


def test_a_tied_head_stands_once_under_its_first_name() -> None:
    graph = discover(build("llama_tied"), name="tied")
    assert graph.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    residual = [
        m for m in graph.group("residual_channel").members if m.parameter.endswith("embed_tokens.weight")
    ]
    assert [(m.role, m.dim) for m in residual] == [("embedding", 1)]
    assert graph.parameters["model.embed_tokens.weight"].macs_per_token == 1.0


def test_costs_and_layers_of_parameters(llama: Graph) -> None:
    assert llama.parameters["model.embed_tokens.weight"].macs_per_token == 0.0
    assert llama.parameters["lm_head.weight"].macs_per_token == 1.0
    down = llama.parameters["model.layers.1.mlp.down_proj.weight"]
    assert (down.shape, down.macs_per_token, down.layer, down.module) == ((48, 40), 1.0, 1, "Linear")
    assert llama.parameters["model.norm.weight"].layer is None
    assert llama.layer_modules == ("model.layers.0", "model.layers.1")


def test_a_config_is_enough(llama: Graph) -> None:
    graph = discover_config(config("llama"), name="llama")
    assert graph.config_only and not llama.config_only
    assert graph.groups == llama.groups and graph.parameters == llama.parameters


def test_the_records_survive_json(llama: Graph) -> None:
    assert Graph.from_json(llama.to_json()) == llama


def test_weights_are_left_alone() -> None:
    model = build("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    discover(model, name="llama")
    assert all((model.state_dict()[name] == value).all() for name, value in before.items())
    assert model.config._attn_implementation == "eager"


def test_experts_are_groups_of_their_own() -> None:
    graph = discover(build("qwen2_moe"), name="moe")
    experts = [group for group in graph.of_kind("ffn_channel") if group.layer == 1 and ".e" in group.id]
    assert [group.id for group in experts] == [f"L01.ffn_channel.e{e:02d}" for e in range(4)]
    for number, group in enumerate(experts):
        found = {m.parameter.rsplit(".", 1)[-1]: m for m in group.members}
        assert {m.at for m in group.members} == {number}
        assert found["gate_up_proj"].dim == 1 and found["down_proj"].dim == 2
        assert found["gate_up_proj"].index().tolist() == [[i, i + 20] for i in range(20)]
    shared = graph.group("L01.ffn_channel")
    assert shared.units == 24 and all("shared_expert" in m.parameter for m in shared.members)
    router = [m for m in graph.group("L01.expert").members if m.role == "router"]
    assert [(m.parameter, m.dim) for m in router] == [("model.layers.1.mlp.gate.weight", 0)]
    stack = graph.parameters["model.layers.1.mlp.experts.down_proj"]
    assert stack.macs_per_token == 2 / 4


def test_channels_of_a_head_go_in_rotary_pairs() -> None:
    group = discover(build("qwen3"), name="qwen3").group("L00.head_dim_pair")
    found = members(group)
    attn = "model.layers.0.self_attn"
    assert not group.prunable and group.units == 5
    assert found[f"{attn}.q_norm.weight", 0].tolist() == [[d, d + 5] for d in range(5)]
    assert found[f"{attn}.k_proj.weight", 0][2].tolist() == [2, 7, 12, 17]


def test_interleaved_and_side_by_side_halves_of_a_fused_matrix() -> None:
    side_by_side = members(discover(build("phi3"), name="phi3").group("L00.ffn_channel"))
    assert side_by_side["model.layers.0.mlp.gate_up_proj.weight", 0][3].tolist() == [3, 43]
    interleaved = members(discover(build("gpt_oss"), name="gpt_oss").group("L00.ffn_channel.e00"))
    assert interleaved["model.layers.0.mlp.experts.gate_up_proj", 2][3].tolist() == [6, 7]
