"""A small config of any causal language model that transformers can build, by shrinking its default one."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

#: Field -> a small value, where a config has the field.
SMALL: dict[str, Any] = {
    "vocab_size": 61, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "hidden_size": 48,
    "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
    "head_dim": 8, "max_position_embeddings": 64, "n_embd": 48, "n_layer": 2, "n_head": 6, "n_positions": 64,
    "n_inner": 40, "d_model": 48, "n_layers": 2, "n_heads": 6, "ffn_dim": 40, "d_inner": 40, "emb_dim": 48,
    "num_layers": 2, "num_heads": 6, "dff": 40, "dim_head": 8, "dim_ff": 40, "ffn_hidden_size": 40,
    "num_kv_heads": 2, "sliding_window": 4, "max_seq_len": 64, "rotary_dim": 4, "prompt_length": 4,
    "word_embed_proj_dim": 48, "embedding_size": 48, "query_pre_attn_scalar": 8,
    # Experts
    "moe_intermediate_size": 20, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "shared_intermediate_size": 24, "shared_expert_intermediate_size": 24,
    "intermediate_size_mlp": 40,
    # Latent attention; state spaces and linear attention
    "kv_lora_rank": 10, "q_lora_rank": 12, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6,
    "mamba_d_state": 4, "state_size": 4, "mamba_n_heads": 6, "mamba_d_head": 16, "mamba_num_heads": 6,
    "mamba_head_dim": 16, "n_mamba_heads": 2, "mamba_dt_rank": 4, "mamba_n_groups": 1,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    # Decoders that usually have an encoder
    "decoder_layers": 2, "encoder_layers": 2, "num_decoder_layers": 2, "decoder_attention_heads": 6,
    "encoder_attention_heads": 6, "num_decoder_attention_heads": 6, "decoder_ffn_dim": 40,
    "encoder_ffn_dim": 40, "max_target_positions": 64, "max_source_positions": 64,
}  # fmt: skip
_LATENT = {"head_dim": 4}
_PER_LAYER = {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 61}
#: What a family needs beside that; None takes a field out of `SMALL`.
OWN: dict[str, dict[str, Any]] = {
    "axk1": _LATENT,
    "cohere_compass_text": {"layer_types": ["sliding_attention", "full_attention"]},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 40, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "gemma3n": _PER_LAYER,
    "gemma3n_text": _PER_LAYER,
    "gemma4": _PER_LAYER,
    "gemma4_text": _PER_LAYER,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "codegen": {"n_embd": 64, "n_head": 8, "rotary_dim": 4},
    "deepseek_v2": {"topk_group": 1, "topk_method": "greedy", "head_dim": 4},
    "deepseek_v3": _LATENT,
    "dots1": {"layer_types": ["full_attention"] * 2, "n_shared_experts": 1, "n_routed_experts": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "intermediate_size": 40, "window_size": 4},
    "jetmoe": {"kv_channels": 8, "num_key_value_heads": 3},
    "mamba2": {"expand": 2, "num_heads": 6, "head_dim": 16, "n_groups": 1},
    "falcon_h1": {"mamba_d_ssm": 96, "mamba_expand": 2},
    "youtu": _LATENT,
    "zaya": {"num_experts_per_tok": 1},
    "longcat_flash": {
        "ffn_hidden_size": 40,
        "expert_ffn_hidden_size": 20,
        "zero_expert_num": 2,
        "head_dim": 4,
    },
}


def small_config(model_type: str) -> PretrainedConfig:
    """Two layers, or one of each kind of layer, 48 hidden channels, 6 query and 2 key-value heads.

    Raises whatever the config says about values that do not go together.
    """
    default = CONFIG_MAPPING[model_type]()
    text = default.get_text_config()
    known = text.to_dict()
    values = {name: value for name, value in SMALL.items() if known.get(name) is not None}
    values |= {name: SMALL[name] for name in ("head_dim", "num_key_value_heads") if name in known}
    if known.get("num_key_value_heads") == known.get("num_attention_heads", 0):
        values["num_key_value_heads"] = SMALL["num_attention_heads"]
    kinds = list(dict.fromkeys(known.get("layer_types") or ()))
    if kinds and "num_hidden_layers" in values:
        count = max(2, len(kinds))
        values |= {"num_hidden_layers": count, "layer_types": (kinds * 2)[:count]}
    return type(text)(**values | OWN.get(model_type, {}))
