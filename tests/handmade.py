"""A dependency graph of Llama-like models written by hand: ground truth for whatever `discover` finds.

Only tests may know layer names.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from core.graph.records import Attention, Graph, Group, Member, Parameter, Role, to_runs

FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


def tiny(
    family: str = "llama", *, seed: int = 0, heads: int = 4, kv_heads: int = 2, **changes: object
) -> PreTrainedModel:
    """Two layers, 32 hidden, head_dim 8, 24 FFN channels, random weights large enough to matter."""
    config_class, model_class = FAMILIES[family]
    values: dict[str, object] = {
        "vocab_size": 96, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "max_position_embeddings": 128,
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "initializer_range": 0.2,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = model_class(config_class(**{**values, **changes}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # norms and biases start as constants, which would hide mistakes
                parameter.copy_(torch.rand_like(parameter) * 0.5 + (0.75 if "norm" in name else -0.25))
    return model.eval()


def blocks(units: int, width: int) -> tuple[tuple[int, int, int], ...]:
    """Unit u owns [u * width, (u + 1) * width)."""
    return to_runs(np.arange(units * width, dtype=np.int64))


def graph_of(model: PreTrainedModel) -> Graph:
    """Groups of a Llama-like model: FFN channels, heads with shared key-value heads, residual channels."""
    config = model.config
    named = dict(model.named_parameters())
    heads, kv_heads, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    groups: list[Group] = []
    residual: list[Member] = []

    def member(name: str, axis: int, role: Role, units: int, width: int) -> list[Member]:
        return [Member(name, axis, role, width, blocks(units, width))] if name in named else []

    for layer in range(config.num_hidden_layers):
        at, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        q = member(f"{at}.q_proj.weight", 0, "layer1", heads, dim) + member(
            f"{at}.q_proj.bias", 0, "vector", heads, dim
        )
        o = member(f"{at}.o_proj.weight", 1, "layer2", heads, dim)
        kv = [
            part
            for one in ("k_proj", "v_proj")
            for part in member(f"{at}.{one}.weight", 0, "layer1", kv_heads, dim)
            + member(f"{at}.{one}.bias", 0, "vector", kv_heads, dim)
        ]
        shared = heads != kv_heads
        parents = tuple(u // (heads // kv_heads) for u in range(heads))
        if shared:
            wide = [replace(m, width=dim * heads // kv_heads) for m in q + o]
            groups.append(Group(f"L{layer:02d}.kv_group", "kv_group", layer, kv_heads, tuple(wide + kv)))
        groups.append(
            Group(
                f"L{layer:02d}.query_head", "query_head", layer, heads,
                tuple(q + o if shared else q + kv + o),
                parent=f"L{layer:02d}.kv_group" if shared else None, parent_unit=parents if shared else (),
            )
        )  # fmt: skip
        ffn = config.intermediate_size
        up = [m for one in ("gate", "up") for m in member(f"{mlp}.{one}_proj.weight", 0, "layer1", ffn, 1)]
        down = member(f"{mlp}.down_proj.weight", 1, "layer2", ffn, 1)
        groups.append(Group(f"L{layer:02d}.ffn_channel", "ffn_channel", layer, ffn, tuple(up + down)))
        residual += _residual_of(f"model.layers.{layer}", config.hidden_size, member)
    ends = member("model.embed_tokens.weight", 1, "embedding", config.hidden_size, 1)
    ends += member("model.norm.weight", 0, "vector", config.hidden_size, 1)
    ends += member("lm_head.weight", 1, "layer2", config.hidden_size, 1)
    members = tuple(residual + ends)
    groups.append(Group("residual_channel", "residual_channel", None, config.hidden_size, members))
    return Graph(
        model="tiny", family=config.model_type, config_only=False, seconds=0.0,
        parameters={name: _parameter(name, value) for name, value in named.items()},
        groups=tuple(groups),
        attentions=tuple(
            Attention(layer, f"model.layers.{layer}.self_attn", heads, kv_heads, dim, dim)
            for layer in range(config.num_hidden_layers)
        ),
        layer_modules=tuple(f"model.layers.{layer}" for layer in range(config.num_hidden_layers)),
        tied={"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {},
    )  # fmt: skip


def _residual_of(layer: str, hidden: int, member) -> list[Member]:  # type: ignore[no-untyped-def]
    found: list[Member] = []
    for one in ("input_layernorm", "post_attention_layernorm"):
        found += member(f"{layer}.{one}.weight", 0, "vector", hidden, 1)
    for one in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"):
        found += member(f"{layer}.{one}.weight", 1, "layer2", hidden, 1)
    for one in ("self_attn.o_proj", "mlp.down_proj"):
        found += member(f"{layer}.{one}.weight", 0, "layer1", hidden, 1)
    return found


def _parameter(name: str, value: torch.Tensor) -> Parameter:
    layer = int(name.split(".")[2]) if name.startswith("model.layers.") else None
    looked_up = value.dim() == 1 or "embed" in name
    return Parameter(tuple(value.shape), 0.0 if looked_up else 1.0, "Linear", layer)


def random_plan(
    graph: Graph, seed: int, kinds: tuple[str, ...] = ("query_head", "ffn_channel")
) -> dict[str, tuple[int, ...]]:
    """Removes between none and all but one of the units of every group of these kinds."""
    rng = np.random.default_rng(seed)
    removed = {}
    for group in graph.of_kind(*kinds):
        count = int(rng.integers(0, group.units))
        removed[group.id] = tuple(sorted(int(u) for u in rng.choice(group.units, count, replace=False)))
    return removed


def ids(model: PreTrainedModel, *, batch: int = 2, length: int = 12, seed: int = 0) -> torch.Tensor:
    """Random token ids, (batch, length)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, model.config.vocab_size, (batch, length), generator=generator)


def logits(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Logits without cache, (batch, length, vocab)."""
    with torch.no_grad():
        return model(tokens, use_cache=False).logits
