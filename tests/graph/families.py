"""Tiny models of every family, by name: `build("llama")`. Imported by every contract suite."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

_LLAMA = {
    "vocab_size": 61,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_MULTI_HEAD = {**_LLAMA, "num_key_value_heads": 6}

#: name -> (model type, config).
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _LLAMA),
    "llama_mha": ("llama", {**_MULTI_HEAD, "attention_bias": True, "mlp_bias": True}),
    "llama_tied": ("llama", {**_LLAMA, "tie_word_embeddings": True}),
    "mistral": ("mistral", _LLAMA),
    "qwen2": ("qwen2", _LLAMA),
    "qwen3": ("qwen3", {**_LLAMA, "head_dim": 10}),
}


def config(name: str) -> PretrainedConfig:
    """The config of a tiny model."""
    model_type, options = CONFIGS[name]
    return AutoConfig.for_model(model_type, **options)


def build(name: str, seed: int = 0) -> PreTrainedModel:
    """A tiny model of this family with random weights, in fp32 and evaluation mode."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        config(name), attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Biases and norm weights start at 0 or 1, where many mistakes do not show.
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model
