"""One pass over calibration text: what criteria need to know, folded to one number per slice as it comes.

Nothing as large as the model is kept: a gradient is folded and freed the moment it is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from core.divergence import Progress, similarity, special_positions
from core.errors import DataError, UnknownNameError
from core.graph.records import Graph

__all__ = ["STATISTICS", "Statistics", "capture", "next_token_loss", "similarity"]

#: What `capture` can find out, by the name that criteria ask for.
STATISTICS = ("weight_gradient",)
#: Residual channels run through every parameter, embeddings included: they are captured only if asked for.
DEFAULT_KINDS = ("ffn_channel", "query_head", "kv_group")


@dataclass
class Statistics:
    """What one pass showed.

    Attributes:
        values: statistic -> (parameter, dim) -> one number per index along that dim, (size,), float32;
            (experts, size) for a stack of experts.
        windows, tokens: how much was read; tokens counts predicted tokens.
        loss: mean next-token loss.
        kinds: the unit kinds whose parameters were looked at.
    """

    values: dict[str, dict[tuple[str, int], Tensor]] = field(default_factory=dict)
    windows: int = 0
    tokens: int = 0
    loss: float = 0.0
    kinds: tuple[str, ...] = DEFAULT_KINDS


def capture(
    model: PreTrainedModel,
    graph: Graph,
    windows: Tensor,
    *,
    needs: set[str],
    batch_size: int = 4,
    kinds: Sequence[str] = DEFAULT_KINDS,
    on_progress: Progress | None = None,
) -> Statistics:
    """Run calibration windows through the model and keep what `needs` names.

    `weight_gradient` is |w g| summed over everything but one dimension of a parameter, g being the
    gradient of one batch's mean next-token loss. Several batches are averaged after the absolute
    value, as mean over batches of |w g_b|.

    Args:
        windows: token ids, (windows, length). Padding and special tokens are not predicted.
        batch_size: windows per batch.
        kinds: only the parameters of these kinds' groups get gradients.
        on_progress: told (windows done, windows in all) after each batch.

    Raises:
        UnknownNameError: a statistic that does not exist.
        DataError: nothing to predict in the windows.
    """
    if stray := needs - set(STATISTICS):
        raise UnknownNameError(
            f"Unknown statistic {', '.join(sorted(stray))}. Available: {', '.join(STATISTICS)}."
        )
    statistics = Statistics(kinds=tuple(kinds))
    if not needs:
        return statistics
    folded = statistics.values.setdefault("weight_gradient", {})
    batches = list(windows.split(batch_size))
    with _gradients(model, _dims_in_scope(graph, kinds), folded):
        for batch in batches:
            loss, tokens = next_token_loss(model, batch.to(model.device))
            loss.backward()
            statistics.loss += float(loss.detach()) * tokens
            statistics.tokens += tokens
            statistics.windows += len(batch)
            if on_progress is not None:
                on_progress(statistics.windows, len(windows))
    statistics.loss /= statistics.tokens
    for vector in folded.values():
        vector /= len(batches)
    return statistics


#: Dimensions of a parameter that are not summed over: the units', and the experts' before it in a stack.
Kept = tuple[int, ...]


def next_token_loss(model: PreTrainedModel, ids: Tensor) -> tuple[Tensor, int]:
    """Mean cross-entropy of every next token that is no special token, and how many those are.

    Raises:
        DataError: all of them are special.
    """
    targets = ids[:, 1:].masked_fill(special_positions(model, ids)[:, 1:], -100)  # (batch, length - 1)
    tokens = int((targets != -100).sum())
    if not tokens:
        raise DataError("The calibration text holds nothing but special tokens; give another text.")
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]  # (batch, length - 1, vocabulary)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten()), tokens


def _dims_in_scope(graph: Graph, kinds: Sequence[str]) -> dict[str, list[Kept]]:
    dims: dict[str, set[Kept]] = {}
    for group in graph.of_kind(*kinds):
        parents = [graph.group(group.parent)] if group.parent else []
        for member in (member for one in [group, *parents] for member in one.members):
            kept = (member.dim,) if member.at is None else (0, member.dim)
            dims.setdefault(member.parameter, set()).add(kept)
    return {name: sorted(found) for name, found in dims.items()}


@contextmanager
def _gradients(
    model: nn.Module, dims: dict[str, list[Kept]], folded: dict[tuple[str, int], Tensor]
) -> Iterator[None]:
    """Give gradients to these parameters alone; fold each as soon as it is complete, and free it."""
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    training, hooks = model.training, []
    model.eval()
    try:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in dims)
            if name in dims:
                hooks.append(parameter.register_post_accumulate_grad_hook(_folding(name, dims[name], folded)))
        with torch.enable_grad():
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, before in wanted.items():
            parameter.requires_grad_(before)
            parameter.grad = None
        model.train(training)


def _folding(
    name: str, dims: Sequence[Kept], folded: dict[tuple[str, int], Tensor]
) -> Callable[[Tensor], None]:
    def fold(parameter: Tensor) -> None:
        assert parameter.grad is not None
        product = (parameter.detach().float() * parameter.grad.float()).abs_()
        for kept in dims:
            others = [d for d in range(product.dim()) if d not in kept]
            sums = product.sum(dim=others) if others else product
            known = folded.get((name, kept[-1]))
            folded[name, kept[-1]] = sums if known is None else known.add_(sums)
        parameter.grad = None

    return fold
