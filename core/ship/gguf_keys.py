"""What a GGUF file says of its model beside the weights: sizes, norms and how positions are turned."""

from __future__ import annotations

import math
from typing import Any

import gguf
import torch
from torch import Tensor

from core.errors import SpecError
from core.ship.gguf_layout import Layout, rope_of
from core.ship.gguf_tensors import Entry, Quantised
from core.surgery.norms import epsilon_of, is_norm

FILE_TYPES = {
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "f32": gguf.LlamaFileType.ALL_F32,
}


def add_sizes(writer: gguf.GGUFWriter, model: Any, layout: Layout, kind: str) -> list[str]:
    """Write sizes, norms and positions. Returns notes for people.

    Raises:
        SpecError: the norms differ in what keeps them from dividing by zero, which the file says once.
    """
    config = model.config
    writer.add_block_count(len(layout.ffn))
    writer.add_embedding_length(layout.wide)
    writer.add_feed_forward_length(list(layout.ffn))
    writer.add_head_count([len(slots.queries) for slots in layout.slots])
    writer.add_head_count_kv([len(slots.keys) for slots in layout.slots])
    writer.add_key_length(layout.head_dim)
    writer.add_value_length(layout.head_dim)
    writer.add_rope_dimension_count(layout.head_dim)
    writer.add_layer_norm_rms_eps(_epsilon(model) * layout.hidden / layout.wide)
    writer.add_vocab_size(tokens_of(model))
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    length, notes = config.max_position_embeddings, []
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window and window < length:
        length = window
        notes.append(f"Attention reaches back {window:,} tokens, so the file says that this is its context.")
    writer.add_context_length(length)
    if rope_of({"rope_parameters": config.rope_parameters})["rope_type"] == "longrope":
        notes.append(
            "llama.cpp takes the factors for long texts whenever its context (-c) is longer than "
            f"{_original(config.rope_parameters, config):,} tokens, transformers for texts that are."
        )
    return notes


def tokens_of(model: Any) -> int:
    """How many tokens the embedding has."""
    return int(model.get_input_embeddings().weight.shape[0])


def _epsilon(model: Any) -> float:
    """Of all norms over hidden channels. Raises SpecError if they differ."""
    width = model.get_input_embeddings().weight.shape[1]
    values = {
        float(getattr(module, str(epsilon_of(module))))
        for module in model.modules()
        if is_norm(module) and module.weight.shape[0] == width
    }
    if len(values) != 1:
        raise SpecError(
            f"The model's norms add different numbers ({sorted(values)}) where llama.cpp adds one."
        )
    return values.pop()


def add_positions(writer: gguf.GGUFWriter, model: Any, layout: Layout) -> list[Entry]:
    """Write how positions are turned. Returns the tensors that go with it."""
    rope = rope_of({"rope_parameters": model.config.rope_parameters})
    kind, base = rope["rope_type"], float(rope["rope_theta"])
    rotary = next(module for module in model.modules() if hasattr(module, "attention_scaling"))
    writer.add_rope_freq_base(base)
    plain = 1.0 / base ** (torch.arange(0, layout.head_dim, 2, dtype=torch.float64) / layout.head_dim)
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        _add_yarn(writer, rope, rotary.attention_scaling)
    elif kind == "llama3":
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        return [_factors("rope_freqs", plain / rotary.inv_freq.double().cpu())]
    elif kind == "longrope":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(_original(rope, model.config))
        writer.add_rope_scaling_attn_factors(rotary.attention_scaling)
        lengths = {"rope_factors_long": "long_factor", "rope_factors_short": "short_factor"}
        return [_factors(name, torch.tensor(rope[field])) for name, field in lengths.items()]
    else:
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    return []


def _original(rope: dict[str, Any], config: Any) -> int:
    return int(rope.get("original_max_position_embeddings") or config.max_position_embeddings)


def _add_yarn(writer: gguf.GGUFWriter, rope: dict[str, Any], scaling: float) -> None:
    """llama.cpp multiplies by 0.1 ln(factor) + 1 of its own accord, the YaRN paper's Eq. 22."""
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    writer.add_rope_scaling_attn_factors(scaling / (0.1 * math.log(rope["factor"]) + 1.0))
    for field, add in (
        ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
        ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
    ):
        if rope.get(field) is not None:
            add(rope[field])


def _factors(name: str, values: Tensor) -> Entry:
    made = values.float()
    return Entry(f"{name}.weight", tuple(made.shape), Quantised.F32, lambda: made)
