"""A pruned model is pruned again: masked = sliced = reloaded, in every family and after any first cut."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.graph.records import Graph
from core.models import saved
from core.models.again import cut_loaded, groups_of
from core.models.load import Loaded
from core.models.saved import load, save
from core.plan.cost import cost, with_costs
from core.plan.records import PruningPlan, missing_biases
from core.surgery.masks import masked
from tests.graph.families import CONFIGS, graph_of, model_of
from tests.handmade import ids, logits
from tests.surgery.test_contract import TOGETHER, plan_of, ragged


def loaded_of(family: str) -> Loaded:
    model = copy.deepcopy(model_of(family, None))
    return Loaded(model, None, family, model.config, torch.float32, torch.device("cpu"))


def plan_for(graph: Graph, removed: dict[str, tuple[int, ...]], *, biased: bool = False) -> PruningPlan:
    biases = missing_biases(graph, removed) if biased else ()
    kinds = tuple(sorted({graph.group(name).kind for name in removed}))
    plan = PruningPlan(removed, graph.model, "l2", kinds=kinds, biases=biases)
    return with_costs(graph, plan, [group for group in graph.of_kind(*kinds) if group.prunable])


@pytest.fixture(autouse=True)
def _no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are read here; that another process reads them, too, is tested with a whole run."""
    monkeypatch.setattr(saved, "read_back", lambda *_: [])


#: One of each kind of block: the others are cut again in the slow tier.
QUICK = (
    "llama", "llama_tied", "gpt2", "bloom", "phi3", "falcon_grouped", "gemma2", "olmo2",
    "cohere_norms", "qwen3_moe", "gpt_bigcode", "olmo", "deepseek_v3",
)  # fmt: skip


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CONFIGS]
)
def test_a_second_cut_is_what_masks_say_and_what_is_read_back(family: str, tmp_path: Path) -> None:
    dense, tokens = graph_of(family), ids(model_of(family, None))
    first = ragged(dense) or plan_of(dense, TOGETHER, 3)
    second = {**first, **{k: v for k, v in plan_of(dense, ("residual_channel",), 4).items()}}
    small = cut_loaded(loaded_of(family), dense, plan_for(dense, second, biased=True))
    graph = groups_of(small)
    assert {name: one.shape for name, one in graph.parameters.items()} == {
        name: tuple(parameter.shape) for name, parameter in small.model.named_parameters()
    }
    for seed, kinds in enumerate([TOGETHER, ("kv_group", "ffn_channel")]):
        removed = plan_of(graph, kinds, seed)
        if not removed:
            continue
        with masked(small.model, graph, removed):
            expected = logits(small.model, tokens)
        again = cut_loaded(replace(small, model=copy.deepcopy(small.model)), graph, plan_for(graph, removed))
        assert (logits(again.model, tokens) - expected).abs().max() < 1e-4, kinds
        params = sum(parameter.numel() for parameter in again.model.parameters())
        assert params == cost(graph, removed).params == again.plan.after.params, kinds
        save(again.model, None, again.graph, again.plan, tmp_path / str(seed))
        read = load(tmp_path / str(seed))[0]
        assert (logits(read, tokens) - expected).abs().max() < 1e-4, kinds


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bloom", "qwen3_moe"])
@pytest.mark.parametrize("blocks_first", [True, False])
def test_blocks_go_before_units_or_after_them(family: str, blocks_first: bool, tmp_path: Path) -> None:
    dense, tokens = graph_of(family), ids(model_of(family, None))
    units = {name: gone for name, gone in ragged(dense).items() if name.startswith("L01")}
    units |= {name: gone for name, gone in plan_of(dense, ("residual_channel",), 4).items()}
    blocks: dict[str, tuple[int, ...]] = {"L00.ffn_block": (0,), "L01.attention_block": (0,)}
    first, second = (blocks, units) if blocks_first else ({**units, "L00.ffn_block": (0,)}, blocks)
    small = cut_loaded(loaded_of(family), dense, plan_for(dense, first, biased=True))
    graph = groups_of(small)
    assert {name: one.shape for name, one in graph.parameters.items()} == {
        name: tuple(parameter.shape) for name, parameter in small.model.named_parameters()
    }
    then = {name: gone for name, gone in second.items() if name in graph.by_id}
    with masked(small.model, graph, then):
        expected = logits(small.model, tokens)
    again = cut_loaded(replace(small, model=copy.deepcopy(small.model)), graph, plan_for(graph, then))
    assert (logits(again.model, tokens) - expected).abs().max() < 1e-4
    params = sum(parameter.numel() for parameter in again.model.parameters())
    assert params == cost(graph, then).params == again.plan.after.params
    save(again.model, None, again.graph, again.plan, tmp_path / "again")
    assert (logits(load(tmp_path / "again")[0], tokens) - expected).abs().max() < 1e-4
