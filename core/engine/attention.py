"""Attention maps: what single heads attend to on a short text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.capture.divergence import attending_plainly, probabilities_of
from core.errors import DataError, NotPrunableError
from core.graph.hooks import hooked
from core.graph.records import Graph

#: More tokens than this cannot be read on the axes of a map.
MOST_TOKENS = 96


def attention_maps(
    model: PreTrainedModel, graph: Graph, ids: Tensor, layer: int, heads: Sequence[int]
) -> Tensor:
    """Attention probabilities of some heads of a layer.

    Args:
        ids: token ids of one text, (tokens,).

    Returns:
        (heads, tokens, tokens), rows are queries and sum to one, float32 on the CPU.

    Raises:
        DataError: the text has no token, or the layer lacks one of the heads.
        NotPrunableError: the layer has no attention block, or one that does not show its probabilities.
    """
    block = next((block for block in graph.attentions if block.layer == layer), None)
    if block is None:
        raise NotPrunableError(f"Layer {layer} of {graph.model} has no attention block to look at.")
    if not len(ids):
        raise DataError("The text holds no token; type a few words.")
    if missing := [head for head in heads if not 0 <= head < block.heads]:
        raise DataError(f"Layer {layer} has heads 0 to {block.heads - 1}, got {missing[0]}.")
    maps: list[Tensor] = []
    shape = (1, block.heads, len(ids), len(ids))

    def keep(_: nn.Module, args: Any, out: Any) -> None:
        probabilities = probabilities_of(out, shape)
        if probabilities is not None:
            maps.append(probabilities[0, list(heads)].float().cpu())

    hook = model.get_submodule(block.module).register_forward_hook(keep)
    with hooked([hook]), attending_plainly(model), torch.inference_mode():
        model.base_model(input_ids=ids[None].to(model.device), use_cache=False)
    if not maps:
        raise NotPrunableError(f"{block.module} does not return its attention, so it cannot be shown.")
    return maps[0]
