"""Whole blocks: masked = sliced = reloaded, and generation with a cache = without, for every family."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.graph.records import BLOCKS, Graph
from core.models import saved
from core.models.saved import load, save
from core.plan.cost import cost, with_costs
from core.plan.records import PruningPlan
from core.surgery.masks import masked
from core.surgery.operate import operate
from tests.graph.families import CONFIGS, PROMISED, graph_of, model_of
from tests.handmade import ids, logits

Removed = dict[str, tuple[int, ...]]
#: Its cache changes what the dense model says, too (transformers 5.23).
CACHE_DIFFERS = ("cpmant",)
#: One of each way to add to the stream: the others are saved in the slow tier.
QUICK = ("llama", "gpt2", "gpt_neox", "bloom", "opt", "falcon", "gemma2", "olmo2", "cohere", "qwen3_moe")


def cases(family: str) -> dict[str, Removed]:
    """Attention gone below and above, an FFN, a whole layer, and an FFN with units of what is left."""
    graph = graph_of(family)
    last = len(graph.layer_modules) - 1
    wanted = {
        "attention": [f"L{last:02d}.attention_block"],
        "first attention": ["L00.attention_block"],
        "feed-forward": ["L00.ffn_block"],
        "layer": ["L00.layer"],
        "crossed": ["L00.ffn_block", f"L{last:02d}.attention_block"],
    }
    plans: dict[str, Removed] = {name: dict.fromkeys(groups, (0,)) for name, groups in wanted.items()}
    units = {
        group.id: (0, group.units - 1) if group.kind == "residual_channel" else (0,)
        for group in graph.of_kind("query_head", "ffn_channel", "residual_channel")
        if group.prunable and group.units > 1 and (group.layer != 0 or group.kind == "query_head")
    }
    plans["with units"] = {**units, "L00.ffn_block": (0,)}
    return {
        name: plan for name, plan in plans.items() if set(plan) <= {g.id for g in graph.groups if g.prunable}
    }


def without(model: PreTrainedModel, graph: Graph, removed: Removed, tokens: Tensor) -> Tensor:
    with masked(model, graph, removed):
        return logits(model, tokens)


@pytest.mark.parametrize("family", CONFIGS)
def test_masked_equals_sliced(family: str) -> None:
    model, graph = model_of(family, None), graph_of(family)
    tokens = ids(model)
    dense = logits(model, tokens)
    for name, removed in cases(family).items():
        expected = without(model, graph, removed, tokens)
        assert not torch.allclose(expected, dense, atol=1e-3), name
        small = operate(copy.deepcopy(model), graph, removed)
        assert (logits(small, tokens) - expected).abs().max() < 1e-4, name
        assert sum(p.numel() for p in small.parameters()) == cost(graph, removed).params, name
    assert torch.equal(logits(model, tokens), dense)


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CONFIGS]
)
def test_reloaded_equals_masked_and_generates(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if family not in ("llama", "bloom"):  # transformers reads these two by itself, in another process
        monkeypatch.setattr(saved, "read_back", lambda *_: [])
    model, graph = model_of(family, None), graph_of(family)
    tokens = ids(model)
    for name, removed in cases(family).items():
        if name not in ("first attention", "layer", "with units"):
            continue
        expected = without(model, graph, removed, tokens)
        small = operate(copy.deepcopy(model), graph, removed)
        plan = with_costs(graph, PruningPlan(removed, family), graph.of_kind(*BLOCKS))
        save(small, None, graph, plan, tmp_path / name, facts={})
        again = load(tmp_path / name)[0]
        assert (logits(again, tokens) - expected).abs().max() < 1e-4, name
        if family not in CACHE_DIFFERS:
            with masked(model, graph, removed):
                expected_text = generated(model, cache=False)
            assert generated(again, cache=True) == generated(again, cache=False) == expected_text, name


def generated(model: PreTrainedModel, *, cache: bool) -> list[list[int]]:
    prompt = ids(model, length=5)
    mask = torch.ones_like(prompt)
    out = model.generate(prompt, attention_mask=mask, max_new_tokens=6, do_sample=False, use_cache=cache)
    return out.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox"])
@pytest.mark.parametrize("gone", ["L00.attention_block", "L00.layer"])
def test_static_caches_beams_and_padding_do_not_miss_the_first_attention(family: str, gone: str) -> None:
    small = operate(copy.deepcopy(model_of(family, None)), graph_of(family), {gone: (0,)})
    prompt = ids(small, length=5)
    mask = torch.ones_like(prompt)
    mask[0, :2] = 0
    for way in ({"cache_implementation": "static"}, {"num_beams": 3}, {}):
        texts = [
            small.generate(prompt, attention_mask=mask, max_new_tokens=6, do_sample=False, **how).tolist()
            for how in (way, {**{k: v for k, v in way.items() if k == "num_beams"}, "use_cache": False})
        ]
        assert texts[0] == texts[1], way


@pytest.mark.parametrize("family", PROMISED)
def test_every_block_is_offered(family: str) -> None:
    graph = graph_of(family)
    layers = len(graph.layer_modules)
    assert {kind: sum(g.prunable for g in graph.of_kind(kind)) for kind in BLOCKS} == dict.fromkeys(
        BLOCKS, layers
    )


@pytest.mark.parametrize("family", PROMISED)
def test_a_layer_holds_all_its_parameters_and_its_blocks_go_with_it(family: str) -> None:
    graph = graph_of(family)
    own = {name for name, parameter in graph.parameters.items() if parameter.layer == 0}
    assert {member.parameter for member in graph.group("L00.layer").members} == own
    both: Removed = {"L00.attention_block": (0,), "L00.ffn_block": (0,)}
    assert cost(graph, both) == cost(graph, {"L00.layer": (0,)}) == cost(graph, {**both, "L00.layer": (0,)})
    gone = sum(int(np.prod(graph.parameters[name].shape)) for name in own)
    assert cost(graph, {}).params - cost(graph, {"L00.layer": (0,)}).params == gone
