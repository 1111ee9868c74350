"""What holds for every criterion: whose heads matter, the order of channels, and what cannot be scored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.capture.statistics import STATISTICS, capture
from core.criteria import CRITERIA
from core.criteria.scoring import score
from core.errors import DataError
from core.graph.discover import discover
from tests.criteria.case import WIDTH
from tests.graph.families import graph_of, model_of
from tests.handmade import ids, tiny

#: Criteria that do not look at what a head does.
NO_HEADS = ("random", "l1", "l2", "alternate_layers")


@pytest.mark.parametrize("name", [n for n in CRITERIA.names() if n not in NO_HEADS])
def test_only_the_query_heads_of_the_key_value_head_that_matters_matter(name: str) -> None:
    """Query heads of key-value head k are k*g … k*g+g-1: with all others silenced, they come out on top."""
    model = tiny(heads=6, kv_heads=3, hidden_size=48)
    graph, tokens = discover(model, name="tiny"), ids(model)
    with torch.no_grad():
        for layer in model.model.layers:
            for kept in (0, 2):
                layer.self_attn.v_proj.weight[kept * WIDTH : (kept + 1) * WIDTH] *= 1e-4
    statistics = capture(model, graph, tokens, needs=set(STATISTICS))
    options = {"tau": 0.0} if name == "similar_heads" else {}
    scores = score(model, graph, [name], statistics, seed=0, options=options)[name]
    for layer in ("L00", "L01"):
        heads = np.argsort(scores[f"{layer}.query_head"])[-2:]
        assert sorted(heads.tolist()) == [2, 3], scores[f"{layer}.query_head"]
        assert scores[f"{layer}.kv_group"].argmax() == 1


@pytest.mark.parametrize("name", [n for n in CRITERIA.names() if n != "random"])
def test_permuting_channels_permutes_scores(name: str) -> None:
    model = tiny()
    graph, tokens = discover(model, name="tiny"), ids(model)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))

    def scored() -> np.ndarray:
        statistics = capture(model, graph, tokens, needs=set(CRITERIA[name].needs), kinds=("ffn_channel",))
        return score(model, graph, [name], statistics, seed=0, kinds=["ffn_channel"])[name]["L00.ffn_channel"]

    before, mlp = scored(), model.model.layers[0].mlp
    with torch.no_grad():
        mlp.gate_proj.weight.copy_(mlp.gate_proj.weight[order])
        mlp.up_proj.weight.copy_(mlp.up_proj.weight[order])
        mlp.down_proj.weight.copy_(mlp.down_proj.weight[:, order])
    assert np.allclose(scored(), before[order.numpy()], rtol=2e-3)


def test_experts_that_cannot_be_watched_are_named_with_the_criterion() -> None:
    model, graph = model_of("mixtral"), graph_of("mixtral")
    statistics = capture(model, graph, ids(model), needs=set(STATISTICS))
    for name in ("wanda", "wifv", "second_moment"):
        with pytest.raises(
            DataError, match=rf"{name} cannot score ffn_channel L00.ffn_channel.e00: .*down_proj"
        ):
            score(model, graph, [name], statistics, seed=0)
        heads = score(model, graph, [name], statistics, seed=0, kinds=["query_head"])
        assert set(heads[name]) == {"L00.query_head", "L01.query_head"}
    for name in ("taylor_first", "fusion", "second_moment_data_free"):
        assert "L00.ffn_channel.e03" in score(model, graph, [name], statistics, seed=0)[name]


def test_damaged_weights_are_named_by_criteria_without_data() -> None:
    model = tiny()
    graph = discover(model, name="tiny")
    model.model.layers[1].self_attn.o_proj.weight.data[0, 0] = torch.inf
    with pytest.raises(DataError, match=r"model.layers.1.self_attn.o_proj.weight holds 1 of 1,024"):
        score(model, graph, ["l2"], None, seed=0)
