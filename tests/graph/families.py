"""Tiny models of every family, by name: `build("llama")`. Imported by every contract suite."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from core.graph.discover import discover
from core.graph.records import Graph
from tests.graph import blocks, packed  # noqa: F401  (importing them registers their families)

_TOKENS = {"vocab_size": 61, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_LLAMA = {
    **_TOKENS,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_MULTI_HEAD = {**_LLAMA, "num_key_value_heads": 6}
_GPT = {**_TOKENS, "n_embd": 48, "n_layer": 2, "n_head": 6, "n_positions": 64, "n_inner": 40}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20, "head_dim": 8}

#: name -> (model type, config).
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _LLAMA),
    "llama_mha": ("llama", {**_MULTI_HEAD, "attention_bias": True, "mlp_bias": True}),
    "llama_tied": ("llama", {**_LLAMA, "tie_word_embeddings": True}),
    "mistral": ("mistral", _LLAMA),
    "qwen2": ("qwen2", _LLAMA),
    "qwen3": ("qwen3", {**_LLAMA, "head_dim": 10}),
    "gpt2": ("gpt2", _GPT),
    "gpt_neox": ("gpt_neox", _LLAMA),
    "gptj": ("gptj", {**_GPT, "rotary_dim": 4}),
    "bloom": ("bloom", {**_TOKENS, "hidden_size": 48, "n_layer": 2, "n_head": 6}),
    "opt": (
        "opt",
        {**_TOKENS, "hidden_size": 48, "ffn_dim": 40, "num_hidden_layers": 2, "num_attention_heads": 6}
        # With relu some channels happen to be dead on any few tokens.
        | {"word_embed_proj_dim": 48, "max_position_embeddings": 64, "activation_function": "gelu"},
    ),
    "phi": ("phi", _MULTI_HEAD),
    "phi3": ("phi3", _LLAMA),
    "glm": ("glm", {**_LLAMA, "head_dim": 8}),
    "falcon": ("falcon", {**_LLAMA, "multi_query": True, "ffn_hidden_size": 40}),
    "falcon_grouped": (
        "falcon",
        {**_LLAMA, "new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 40},
    ),
    "falcon_alibi": ("falcon", {**_LLAMA, "multi_query": False, "alibi": True, "ffn_hidden_size": 40}),
    "gemma2": ("gemma2", {**_LLAMA, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4}),
    "gemma3": ("gemma3_text", {**_LLAMA, "head_dim": 8, "num_hidden_layers": 6, "sliding_window": 4}),
    "olmo2": ("olmo2", _LLAMA),
    "stablelm": ("stablelm", _LLAMA),
    "starcoder2": ("starcoder2", _LLAMA),
    "cohere": ("cohere", _LLAMA),
    "cohere_norms": ("cohere", {**_LLAMA, "use_qk_norm": True}),
    "granite": ("granite", _LLAMA),
    "nemotron": ("nemotron", _LLAMA),
    "mixtral": ("mixtral", {**_LLAMA, "num_local_experts": 4}),
    "qwen2_moe": ("qwen2_moe", {**_LLAMA, **_EXPERTS, "shared_expert_intermediate_size": 24}),
    "qwen3_moe": ("qwen3_moe", {**_LLAMA, **_EXPERTS}),
    "packed": ("packed", _TOKENS),
    "blocks": ("blocks", _TOKENS),
    # Not asked for by name: others should work too.
    "gpt_bigcode": ("gpt_bigcode", _GPT),
    "mpt": ("mpt", {"vocab_size": 61, "d_model": 48, "n_layers": 2, "n_heads": 6, "max_seq_len": 64}),
    "gpt_oss": ("gpt_oss", {**_LLAMA, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}),
    # One norm module per head: its heads are found, and refused.
    "stablelm_norms": ("stablelm", {**_LLAMA, "qk_layernorm": True}),
    # Two attentions over the same queries and keys, a position bias that all layers share, layers that run
    # twice, recurrent blocks: what is offered must be sound.
    "diffllama": ("diffllama", {**_LLAMA, "head_dim": 8}),
    "cpmant": (
        "cpmant",
        {**_TOKENS, "hidden_size": 48, "num_attention_heads": 6, "dim_head": 8, "dim_ff": 40}
        | {"num_hidden_layers": 2, "prompt_length": 4},
    ),
    "recurrent_gemma": ("recurrent_gemma", {**_LLAMA, "num_hidden_layers": 3, "hidden_activation": "gelu"}),
    "llama4": ("llama4_text", {**_LLAMA, "head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 40}),
    # Norms without a weight, one that subtracts the mean and one that does not.
    "olmo": ("olmo", _LLAMA),
    "nanochat": ("nanochat", {**_LLAMA, "hidden_act": "gelu"}),
    "granitemoe": ("granitemoe", {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "hunyuan": ("hunyuan_v1_dense", {**_LLAMA, "head_dim": 8}),
    "deepseek_v3": (
        "deepseek_v3",
        {**_MULTI_HEAD, "n_routed_experts": 8, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2}
        | {"moe_intermediate_size": 20, "first_k_dense_replace": 1, "q_lora_rank": 12, "kv_lora_rank": 10}
        | {"qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6},
    ),
}

#: The families the project promises; the rest of `CONFIGS` is there to see that others work as well.
PROMISED = tuple(CONFIGS)[: tuple(CONFIGS).index("gpt_bigcode")]


def config(name: str) -> PretrainedConfig:
    """The config of a tiny model."""
    model_type, options = CONFIGS[name]
    if model_type == "gpt_oss":
        options = {**options, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    return AutoConfig.for_model(model_type, **options)


def build(name: str, *, attention: str | None = "eager", seed: int = 0) -> PreTrainedModel:
    """A tiny model of this family with random weights, in fp32 and evaluation mode.

    Args:
        attention: its implementation; None for what the family takes by itself.
    """
    torch.manual_seed(seed)
    options = {"attn_implementation": attention} if attention else {}
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config(name), **options).eval()
    shake(model)
    return model


@functools.cache
def model_of(name: str, attention: str | None = "eager") -> PreTrainedModel:
    """One model of this family for all tests, which must leave it as it is."""
    torch.set_num_threads(1)
    return build(name, attention=attention)


@functools.cache
def graph_of(name: str) -> Graph:
    """Its coupled groups."""
    return discover(model_of(name), name=name)


def shake(model: nn.Module) -> None:
    """Biases and norm weights start at 0 or 1, and stacks of experts unset: many mistakes do not show so."""
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(noise * 0.2 if parameter.ndim > 1 else parameter.nan_to_num() + noise * 0.1)
