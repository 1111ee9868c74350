"""Coupled structures as networkx graphs, and what explains a coupling."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core.errors import UnknownNameError
from core.graph.discover import discover
from core.graph.records import Graph
from core.graph.view import coupled_structure, path_between, strengths
from tests.graph.families import build

MLP = "model.layers.1.mlp"
ATTENTION = "model.layers.1.self_attn"


@pytest.fixture(scope="module")
def llama() -> Graph:
    return discover(build("llama"), name="llama")


def test_the_structure_of_an_ffn_channel(llama: Graph) -> None:
    drawn = coupled_structure(llama, "L01.ffn_channel", 7)
    pruned = {name: data for name, data in drawn.nodes(data=True) if data["pruned"]}
    assert set(pruned) == {f"{MLP}.{p}_proj.weight" for p in ("gate", "up", "down")}
    assert all(data["indices"] == [7] for data in pruned.values())
    assert [name for name, data in pruned.items() if data["trigger"]] == [f"{MLP}.gate_proj.weight"]
    dashed = {(a, b) for a, b, data in drawn.edges(data=True) if data["pruned"]}
    assert dashed == {(f"{MLP}.{p}_proj.weight", f"{MLP}.down_proj.weight") for p in ("gate", "up")}
    neighbours = {name for name, data in drawn.nodes(data=True) if not data["pruned"]}
    assert neighbours == {"model.layers.1.post_attention_layernorm.weight", "model.norm.weight"}


def test_gate_and_up_meet_in_a_product(llama: Graph) -> None:
    path = path_between(llama, f"{MLP}.gate_proj.weight", f"{MLP}.up_proj.weight")
    assert path == [f"{MLP}.gate_proj.weight", "aten.silu", "aten.mul", f"{MLP}.up_proj.weight"]


def test_queries_and_keys_meet_in_the_scores(llama: Graph) -> None:
    path = path_between(llama, f"{ATTENTION}.q_proj.weight", f"{ATTENTION}.k_proj.weight")
    assert "aten.bmm" in path and "aten._softmax" not in path
    assert path[-1] == f"{ATTENTION}.k_proj.weight"


def test_a_path_runs_against_the_flow_as_well(llama: Graph) -> None:
    there = path_between(llama, "model.embed_tokens.weight", "lm_head.weight")
    assert there == path_between(llama, "lm_head.weight", "model.embed_tokens.weight")[::-1]
    assert len(there) > 2


def test_strength_is_one_half_where_nothing_else_is_connected(llama: Graph) -> None:
    strength = strengths(llama)
    assert strength["model.norm.weight", "lm_head.weight"] == 1 / 2
    # down has two inputs, gate has one output.
    assert strength[f"{MLP}.gate_proj.weight", f"{MLP}.down_proj.weight"] == 1 / 3


def test_a_structure_whose_slices_lie_in_one_matrix() -> None:
    graph = discover(build("gpt2"), name="gpt2")
    drawn = coupled_structure(graph, "L00.query_head", 2)
    packed = drawn.nodes["transformer.h.0.attn.c_attn.weight"]
    assert packed["indices"] == [*range(16, 24), *range(64, 72), *range(112, 120)]
    assert packed["dim"] == 1


def test_unknown_names_are_told(llama: Graph) -> None:
    with pytest.raises(UnknownNameError, match="no group 'L99"):
        coupled_structure(llama, "L99.ffn_channel", 0)
    with pytest.raises(UnknownNameError, match="units 0 to 39, got 40"):
        coupled_structure(llama, "L00.ffn_channel", 40)
    with pytest.raises(UnknownNameError, match="no parameter 'nope'"):
        path_between(llama, "nope", "lm_head.weight")


def test_viewing_needs_no_torch() -> None:
    code = "import sys, core.graph.view; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
