"""A small decoder in the manner of ChatGLM 2 and 3: fused `query_key_value` with few key-value heads, fused
`dense_h_to_4h`, half of every head rotated in interleaved pairs, biases on the first of both."""

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

from tests.graph.packed import PackedNorm, attend


class BlocksConfig(PretrainedConfig):
    model_type = "blocks"

    def __init__(
        self,
        vocab_size: int = 61,
        hidden_size: int = 48,
        ffn_hidden_size: int = 40,
        num_hidden_layers: int = 2,
        num_attention_heads: int = 6,
        multi_query_group_num: int = 2,
        **options: object,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.ffn_hidden_size = ffn_hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.multi_query_group_num = multi_query_group_num
        super().__init__(**options)


def rotate(x: Tensor, start: int) -> Tensor:
    """Turn the first half of every head by its position, neighbours as pairs, (batch, heads, length, dim)."""
    length, dim = x.shape[-2], x.shape[-1] // 2
    frequency = 1.0 / 10000 ** (torch.arange(0, dim, 2, device=x.device) / dim)
    angle = torch.arange(start, start + length, device=x.device)[:, None] * frequency  # (length, dim / 2)
    turned, rest = x[..., :dim], x[..., dim:]
    even, odd = turned[..., 0::2], turned[..., 1::2]
    pairs = [even * angle.cos() - odd * angle.sin(), odd * angle.cos() + even * angle.sin()]
    return torch.cat([torch.stack(pairs, -1).flatten(-2), rest], -1)


class BlocksAttention(nn.Module):
    def __init__(self, config: BlocksConfig, layer: int) -> None:
        super().__init__()
        self.layer_number = layer
        self.projection_size = config.hidden_size
        self.num_attention_heads_per_partition = config.num_attention_heads
        self.num_multi_query_groups_per_partition = config.multi_query_group_num
        self.hidden_size_per_attention_head = config.hidden_size // config.num_attention_heads
        dim = self.hidden_size_per_attention_head
        self.qkv_hidden_size = self.projection_size + 2 * dim * config.multi_query_group_num
        self.query_key_value = nn.Linear(config.hidden_size, self.qkv_hidden_size)
        self.dense = nn.Linear(self.projection_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor, cache: Cache | None) -> Tensor:
        heads, groups = self.num_attention_heads_per_partition, self.num_multi_query_groups_per_partition
        dim, start = (
            self.hidden_size_per_attention_head,
            cache.get_seq_length(self.layer_number) if cache else 0,
        )
        mixed = self.query_key_value(hidden)
        parts = mixed.split([heads * dim, groups * dim, groups * dim], dim=-1)
        query, key, value = (part.unflatten(-1, (-1, dim)).transpose(1, 2) for part in parts)
        query, key = rotate(query, start), rotate(key, start)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_number)
        key, value = (
            one.unsqueeze(2).expand(-1, -1, heads // groups, -1, -1).flatten(1, 2) for one in (key, value)
        )  # (batch, heads, length, dim)
        context = attend(query, key, value).transpose(1, 2)
        return self.dense(context.reshape(*hidden.shape[:2], self.projection_size))


class BlocksMLP(nn.Module):
    def __init__(self, config: BlocksConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, 2 * config.ffn_hidden_size, bias=False)
        self.dense_4h_to_h = nn.Linear(config.ffn_hidden_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        gate, up = self.dense_h_to_4h(hidden).chunk(2, dim=-1)
        return self.dense_4h_to_h(nn.functional.silu(gate) * up)


class BlocksLayer(nn.Module):
    def __init__(self, config: BlocksConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = PackedNorm(config.hidden_size)
        self.self_attention = BlocksAttention(config, layer)
        self.post_attention_layernorm = PackedNorm(config.hidden_size)
        self.mlp = BlocksMLP(config)

    def forward(self, hidden: Tensor, cache: Cache | None) -> Tensor:
        hidden = hidden + self.self_attention(self.input_layernorm(hidden), cache)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class BlocksForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = BlocksConfig
    _no_split_modules = ["BlocksLayer"]  # noqa: RUF012

    def __init__(self, config: BlocksConfig) -> None:
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(BlocksLayer(config, n) for n in range(config.num_hidden_layers))
        self.final_layernorm = PackedNorm(config.hidden_size)
        self.output_layer = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
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
        hidden = self.word_embeddings(input_ids)
        for layer in self.layers:
            hidden = layer(hidden, past_key_values)
        logits = self.output_layer(self.final_layernorm(hidden))
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)


AutoConfig.register("blocks", BlocksConfig)
AutoModelForCausalLM.register(BlocksConfig, BlocksForCausalLM)
