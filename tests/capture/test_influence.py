"""Block influence: ShortGPT's formula from the hidden states, and perplexity without a block."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from core.capture.influence import block_influence
from core.evaluate.blocks import perplexities_without
from core.graph.discover import discover
from core.graph.records import BLOCKS
from core.surgery.masks import masked
from tests.graph.families import CONFIGS, graph_of, model_of
from tests.handmade import ids


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bloom", "opt", "gemma2"])
def test_block_influence_is_one_minus_the_mean_cosine(family: str) -> None:
    model, graph = model_of(family, None), graph_of(family)
    windows = ids(model, batch=3)
    ours = block_influence(model, graph, windows, batch_size=2)
    assert set(ours) == {group.id for group in graph.of_kind(*BLOCKS)}
    with torch.no_grad():
        states = model(windows, output_hidden_states=True).hidden_states
    x = np.stack([state.double().numpy() for state in states[:-1]])  # the last is behind the final norm
    for layer in range(len(x) - 1):
        cosines = [
            (a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum())
            for a, b in zip(x[layer].reshape(-1, 48), x[layer + 1].reshape(-1, 48), strict=True)
        ]
        assert ours[f"L{layer:02d}.layer"] == pytest.approx(1 - sum(cosines) / len(cosines), abs=1e-5)


def test_a_block_turns_the_stream_it_reads() -> None:
    model, graph = model_of("llama", None), graph_of("llama")
    windows = ids(model)
    ours = block_influence(model, graph, windows)
    taken: dict[str, torch.Tensor] = {}
    layer: nn.Module = model.get_submodule("model.layers.1")
    norms = {"attention": layer.input_layernorm, "ffn": layer.post_attention_layernorm}
    hooks = [
        norm.register_forward_pre_hook(lambda _, args, name=name: taken.update({name: args[0].clone()}))  # type: ignore[misc]
        for name, norm in norms.items()
    ]
    hooks.append(layer.register_forward_hook(lambda _, args, out: taken.update(out=out.clone())))
    with torch.no_grad():
        model(windows)
    for hook in hooks:
        hook.remove()
    for name, before, after in (("attention", "attention", "ffn"), ("ffn", "ffn", "out")):
        cosine = torch.cosine_similarity(taken[before].double(), taken[after].double(), dim=-1)
        assert ours[f"L01.{name}_block"] == pytest.approx(float(1 - cosine.mean()), abs=1e-6)


def test_blocks_whose_output_is_scaled_are_left_out() -> None:
    torch.manual_seed(0)
    scaled = AutoConfig.for_model("granite", **CONFIGS["granite"][1], residual_multiplier=0.5)
    model = AutoModelForCausalLM.from_config(scaled).eval()
    graph = discover(model)
    assert set(block_influence(model, graph, ids(model))) == {"L00.layer", "L01.layer"}
    assert {group.kind for group in graph.groups if group.prunable} >= set(BLOCKS), "they can go all the same"


@pytest.mark.parametrize("family", ["llama", "falcon"])
def test_perplexity_without_a_block_is_that_of_the_masked_model(family: str) -> None:
    model, graph = model_of(family, None), graph_of(family)
    windows, blocks = ids(model, batch=3), graph.of_kind("layer", "ffn_block")
    ours = perplexities_without(model, graph, blocks, windows)
    assert set(ours) == {block.id for block in blocks}
    for block in blocks:
        with masked(model, graph, {block.id: (0,)}), torch.no_grad():
            loss = float(model(windows, labels=windows).loss)
        assert ours[block.id] == pytest.approx(math.exp(loss), rel=1e-4)
