"""A small decoder in the manner of Baichuan: one `W_pack` matrix holds queries, keys and values."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.generation.utils import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast


class PackedConfig(PretrainedConfig):
    model_type = "packed"

    def __init__(
        self,
        vocab_size: int = 61,
        hidden_size: int = 48,
        intermediate_size: int = 40,
        num_hidden_layers: int = 2,
        num_attention_heads: int = 6,
        **options: object,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        super().__init__(**options)


class PackedNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = 1e-6

    def forward(self, hidden: Tensor) -> Tensor:
        return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.epsilon)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention, (batch, heads, length, head_dim); what is cached comes before what is asked."""
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
    asked, known = scores.shape[-2:]
    hide = torch.full((asked, known), float("-inf"), device=query.device).triu(1 + known - asked)
    return (scores + hide).softmax(-1) @ value


class PackedAttention(nn.Module):
    def __init__(self, config: PackedConfig, layer: int) -> None:
        super().__init__()
        self.layer_idx = layer
        self.hidden_size = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.W_pack = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor, cache: Cache | None) -> Tensor:
        batch, length, _ = hidden.shape
        packed = (
            self.W_pack(hidden).unflatten(-1, (3, self.hidden_size)).unsqueeze(0).transpose(0, -2).squeeze(-2)
        )
        query, key, value = (
            packed[i].view(batch, length, self.num_heads, self.head_dim).transpose(1, 2) for i in range(3)
        )  # (batch, heads, length, head_dim)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        mixed = attend(query, key, value)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, self.hidden_size))


class PackedLayer(nn.Module):
    def __init__(self, config: PackedConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = PackedNorm(config.hidden_size)
        self.self_attn = PackedAttention(config, layer)
        self.post_attention_layernorm = PackedNorm(config.hidden_size)
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor, cache: Cache | None) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), cache)
        normed = self.post_attention_layernorm(hidden)
        return hidden + self.down_proj(nn.functional.silu(self.gate_proj(normed)) * self.up_proj(normed))


class PackedForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = PackedConfig
    _no_split_modules = ["PackedLayer"]  # noqa: RUF012

    def __init__(self, config: PackedConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(PackedLayer(config, n) for n in range(config.num_hidden_layers))
        self.norm = PackedNorm(config.hidden_size)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        **options: object,
    ) -> CausalLMOutputWithPast:
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        hidden = self.embed_tokens(input_ids)
        for layer in self.layers:
            hidden = layer(hidden, past_key_values)
        return CausalLMOutputWithPast(logits=self.lm_head(self.norm(hidden)), past_key_values=past_key_values)


AutoConfig.register("packed", PackedConfig)
AutoModelForCausalLM.register(PackedConfig, PackedForCausalLM)
