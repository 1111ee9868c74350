"""Every causal language model of transformers works, or says what cannot be followed, and nothing else."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from core.errors import ModelError, NotPrunableError
from core.graph.discover import discover
from core.graph.records import Graph
from core.surgery.masks import masked
from core.surgery.operate import operate
from tests.graph.families import shake
from tests.graph.small_configs import small_config
from tests.handmade import random_plan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # what the families warn of is not ours to judge
]
IDS = torch.arange(22).view(2, 11) + 3
KINDS = ("query_head", "kv_group", "ffn_channel", "residual_channel")
TOGETHER = ("query_head", "ffn_channel", "residual_channel")
#: Nobody listed these, and all of them can be pruned in every way.
WHOLE = (
    "afmoe", "apertus", "arcee", "aria_text", "bart", "biogpt", "bitnet", "cohere2", "cwm", "doge",
    "ernie4_5", "ernie4_5_moe", "exaone4", "exaone_moe", "flex_olmo", "fuyu", "gemma", "glm4", "glm4_moe",
    "gpt_bigcode", "gpt_neox_japanese", "gpt_oss", "granitemoe", "granitemoeshared", "helium",
    "hunyuan_v1_dense", "hunyuan_v1_moe", "internlm3", "jais2", "llama4_text", "marian", "mbart",
    "minimax_m2", "ministral", "modernbert-decoder", "moshi", "mpt", "mvp", "nanochat", "olmo", "olmo3",
    "olmoe", "openai-gpt", "persimmon", "phimoe", "seed_oss", "smollm3", "vaultgemma",
)  # fmt: skip
#: More parameters than a small config should give: it does not reach some part of the model.
LARGE = 30_000_000


def build(model_type: str) -> PreTrainedModel:
    """A small model, or a skip with the reason that transformers gives."""
    torch.manual_seed(0)
    try:
        model = AutoModelForCausalLM.from_config(small_config(model_type), attn_implementation="eager").eval()
    except Exception as error:  # each family objects to sizes in its own way
        pytest.skip(f"no small {model_type}: {type(error).__name__}: {str(error)[:120]}")
    if sum(parameter.numel() for parameter in model.parameters()) > LARGE:
        pytest.skip(f"no small {model_type}: it stays large")
    shake(model)
    return model


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def plan_of(graph: Graph, kinds: tuple[str, ...], seed: int) -> dict[str, tuple[int, ...]]:
    prunable = {group.id for group in graph.of_kind(*kinds) if group.prunable and group.units > 1}
    plan = {group: units for group, units in random_plan(graph, seed, kinds).items() if group in prunable}
    rng = np.random.default_rng(0)
    for group in graph.groups:
        if group.id in plan and any(member.at is not None for member in group.members):
            plan[group.id] = tuple(sorted(rng.choice(group.units, group.units // 3, replace=False).tolist()))
    return {group: units for group, units in plan.items() if units}


def names_a_module(model: PreTrainedModel, message: str) -> bool:
    return any(name and name in message for name, _ in model.named_modules()) or "output layer" in message


@pytest.mark.parametrize("model_type", list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
def test_it_works_or_says_what_cannot_be_followed(model_type: str) -> None:
    model = build(model_type)
    refused = []
    try:
        graph = discover(model, name=model_type)
    except (ModelError, NotPrunableError) as error:
        assert "decoder-only" in str(error) or names_a_module(model, str(error))
        assert model_type not in WHOLE, str(error)
        return
    for refusal in graph.not_prunable:
        assert names_a_module(model, refusal["reason"]) or "parameter" in refusal["reason"], refusal
    for seed, kinds in enumerate([*((kind,) for kind in KINDS), TOGETHER]):
        plan = plan_of(graph, kinds, seed)
        if not plan and any(group.prunable for group in graph.of_kind(*kinds)):
            continue  # the only unit there is
        if not plan:
            refused.append(f"{kinds} not offered")
            continue
        with masked(model, graph, plan):
            expected = logits(model)
        try:
            small = operate(copy.deepcopy(model), graph, plan)
        except NotPrunableError as error:
            assert names_a_module(model, str(error)), str(error)
            refused.append(f"{kinds} {error}")
            continue
        assert (logits(small) - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max())), kinds
    if model_type in WHOLE:
        assert refused == []
