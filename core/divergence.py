"""How differently two heads attend: Jensen-Shannon distance of their attention, all pairs at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.artifacts import Similarity
from core.errors import DataError, NotPrunableError
from core.graph.records import Attention, Graph

Progress = Callable[[int, int], None]


def js_distances(probabilities: Tensor, counted: Tensor) -> Tensor:
    """Sum of the Jensen-Shannon distances of every pair of heads over query positions.

    JS(P, Q) = H((P + Q) / 2) - (H(P) + H(Q)) / 2 with natural logarithms; the distance is its square
    root. In this form a head's entropy is taken once, not once per pair.

    Args:
        probabilities: attention, (batch, heads, queries, keys), rows sum to one.
        counted: which query positions count, (batch, queries), bool.

    Returns:
        (heads, heads), symmetric, zero diagonal, float32; divide by the positions for the mean.

    Source: the output-approximation paper, Eq. 1.
    """
    p = probabilities.float().transpose(1, 2)[counted]  # (positions, heads, keys)
    p = p / p.sum(dim=-1, keepdim=True)
    p = p.transpose(0, 1).contiguous()  # (heads, positions, keys)
    entropy = torch.special.entr(p).sum(dim=-1)  # (heads, positions)
    heads = p.shape[0]
    total = p.new_zeros(heads, heads)
    for i in range(heads - 1):
        middle = torch.special.entr((p[i + 1 :] + p[i]) / 2).sum(dim=-1)  # (heads after i, positions)
        js = middle - (entropy[i + 1 :] + entropy[i]) / 2
        total[i, i + 1 :] = js.clamp_min_(0).sqrt_().sum(dim=-1)
    return total + total.T


def similarity(
    model: PreTrainedModel,
    graph: Graph,
    windows: Tensor,
    *,
    text: str,
    batch_size: int = 4,
    on_progress: Progress | None = None,
) -> Similarity:
    """Mean distance of all pairs of heads in every layer, over the positions of calibration windows.

    One layer's attention is looked at and dropped before the next one's exists. The model attends
    with its plain (eager) implementation meanwhile, since others do not show probabilities.

    Args:
        windows: token ids, (windows, length); positions of special tokens do not count.
        text: the name of the text, kept with the result.

    Returns:
        (layers, heads, heads); a layer with fewer heads than another is filled up with NaN.

    Raises:
        NotPrunableError: the model has no attention, or a block does not show its probabilities.
        DataError: nothing but special tokens.
    """
    if not graph.attentions:
        raise NotPrunableError(f"{graph.model} has no attention blocks whose heads could be compared.")
    totals = {a.layer: torch.zeros(a.heads, a.heads) for a in graph.attentions}
    tokens = done = 0
    with _eager(model), torch.inference_mode():
        for batch in windows.split(batch_size):
            ids = batch.to(model.device)
            counted = ~special_positions(model, ids)
            _watch(model, graph, ids, counted, totals)
            tokens, done = tokens + int(counted.sum()), done + len(batch)
            if on_progress is not None:
                on_progress(done, len(windows))
    if not tokens:
        raise DataError("The calibration text holds nothing but special tokens; give another text.")
    return Similarity(_stack(graph, totals, tokens), sorted(totals), tokens, text)


def special_positions(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Where padding, begin and end tokens stand, as the model's config names them, (batch, length)."""
    special: set[int] = set()
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        value = getattr(model.config.get_text_config(), name, None)
        special.update(one for one in (value if isinstance(value, list) else [value]) if one is not None)
    return torch.isin(ids, torch.tensor(sorted(special), dtype=ids.dtype, device=ids.device))


def _stack(graph: Graph, totals: dict[int, Tensor], tokens: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    heads = max(attention.heads for attention in graph.attentions)
    stacked = np.full((len(totals), heads, heads), np.nan, dtype=np.float32)
    for at, layer in enumerate(sorted(totals)):
        mean = (totals[layer] / tokens).numpy()
        stacked[at, : len(mean), : len(mean)] = mean
    return stacked


def _watch(
    model: PreTrainedModel, graph: Graph, ids: Tensor, counted: Tensor, totals: dict[int, Tensor]
) -> None:
    """Add one batch's distances to `totals`, layer by layer as the forward pass reaches them."""
    seen: set[int] = set()
    hooks = []
    for attention in graph.attentions:
        module = model.get_submodule(attention.module)
        hooks.append(module.register_forward_hook(_adding(attention, counted, totals, seen)))
    try:
        model.base_model(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    if missing := sorted(set(totals) - seen):
        module_name = next(a.module for a in graph.attentions if a.layer == missing[0])
        raise NotPrunableError(
            f"{module_name} does not return its attention, so its heads cannot be compared."
        )


def _adding(
    attention: Attention, counted: Tensor, totals: dict[int, Tensor], seen: set[int]
) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_: nn.Module, args: Any, out: Any) -> None:
        batch, queries = counted.shape
        shape = (batch, attention.heads, queries, queries)
        for item in out if isinstance(out, tuple) else ():
            if isinstance(item, Tensor) and tuple(item.shape) == shape:
                totals[attention.layer] += js_distances(item, counted).cpu()
                seen.add(attention.layer)
                return

    return hook


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Attend in the plain way, in evaluation mode, and go back afterwards."""
    before, training = model.config._attn_implementation, model.training
    model.set_attn_implementation("eager")
    model.eval()
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        model.train(training)
