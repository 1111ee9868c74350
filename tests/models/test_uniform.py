"""Whole layers that are gone, all others alike: a plain stock model with fewer layers, numbered anew."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.graph.discover import discover
from core.graph.records import Graph
from core.models.again import cut_loaded, groups_of
from core.models.load import Loaded
from core.models.saved import load, save
from core.models.uniform import uniform_config
from core.plan.cost import with_costs
from core.plan.records import PruningPlan
from core.surgery.operate import operate
from tests.graph.families import graph_of, model_of
from tests.handmade import ids, logits, tiny

Removed = dict[str, tuple[int, ...]]
ALIKE: Removed = {f"L0{layer}.ffn_channel": (layer, 5) for layer in (0, 2)}
#: The one in the middle goes whole, by itself, by its blocks, or with channels of the others.
PLANS: dict[str, Removed] = {
    "layer": {"L01.layer": (0,)},
    "both of its blocks": {"L01.attention_block": (0,), "L01.ffn_block": (0,)},
    "and widths": {"L01.layer": (0,), **ALIKE},
}


def cut(model: PreTrainedModel, graph: Graph, removed: Removed) -> tuple[PreTrainedModel, PruningPlan]:
    plan = with_costs(graph, PruningPlan(removed, "tiny"), graph.of_kind("layer", "ffn_channel"))
    return operate(copy.deepcopy(model), graph, removed), plan


@pytest.mark.parametrize("name", PLANS)
def test_fewer_layers_are_a_stock_model_without_code(name: str, tmp_path: Path) -> None:
    model = tiny("llama", num_hidden_layers=3)
    graph = discover(model)
    small, plan = cut(model, graph, PLANS[name])
    save(small, None, graph, plan, tmp_path / "model", facts={})
    assert not any((tmp_path / "model").glob("*.py"))
    assert json.loads((tmp_path / "model" / "config.json").read_text())["num_hidden_layers"] == 2
    with safe_open(tmp_path / "model" / "model.safetensors", framework="pt") as file:
        assert {name.split(".")[2] for name in file.keys() if ".layers." in name} == {"0", "1"}  # noqa: SIM118
    expected = logits(small, ids(model))
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for again in (stock, load(tmp_path / "model")[0]):
        assert (logits(again, ids(model)) - expected).abs().max() < 1e-5


def test_what_differs_elsewhere_brings_code_as_before(tmp_path: Path) -> None:
    model = tiny("llama", num_hidden_layers=3)
    graph = discover(model)
    for removed in ({"L01.layer": (0,), "L00.ffn_channel": (1,)}, {"L01.ffn_block": (0,)}):
        small, plan = cut(model, graph, removed)
        assert uniform_config(small, graph, plan) is None


def test_every_layer_keeps_what_the_config_says_of_it_alone() -> None:
    model, graph = model_of("gemma3", None), graph_of("gemma3")
    types = model.config.layer_types
    gone = types.index("full_attention")
    small, plan = cut(model, graph, {f"L{gone:02d}.layer": (0,)})
    config = uniform_config(small, graph, plan)
    assert config is not None and config.layer_types == [*types[:gone], *types[gone + 1 :]]


def test_it_is_read_and_cut_again(tmp_path: Path) -> None:
    model = tiny("llama", num_hidden_layers=3)
    graph = discover(model)
    small, plan = cut(model, graph, PLANS["layer"])
    save(small, None, graph, plan, tmp_path / "once", facts={})
    read, _, held = load(tmp_path / "once")
    loaded = Loaded(read, None, "tiny", read.config, torch.float32, read.device, plan=held, graph=graph)
    again = cut_loaded(loaded, groups_of(loaded), PruningPlan({"L02.layer": (0,)}, "tiny"))
    assert again.graph is not None and again.plan is not None
    save(again.model, None, again.graph, again.plan, tmp_path / "twice", facts={})
    expected, _ = cut(model, graph, {"L01.layer": (0,), "L02.layer": (0,)})
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "twice")
    assert stock.config.num_hidden_layers == 1
    assert torch.equal(logits(stock, ids(model)), logits(expected, ids(model)))
