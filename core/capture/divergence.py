"""How differently two heads attend: Jensen-Shannon distance of their attention, all pairs at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.capture.kernels import distances
from core.errors import DataError, NotPrunableError
from core.graph.hooks import evaluating, hooked
from core.graph.records import Attention, Graph
from core.models.tokens import Progress, special_positions
from core.results.similarity import Similarity


def js_distances(
    probabilities: Float[Tensor, "batch heads queries keys"], counted: Bool[Tensor, "batch queries"]
) -> Float[Tensor, "heads heads"]:
    """Sum of the Jensen-Shannon distances of every pair of heads over query positions.

    JS(P, Q) = H((P + Q) / 2) - (H(P) + H(Q)) / 2 with natural logarithms; the distance is its square
    root. In this form a head's entropy is taken once, not once per pair, and a pair costs one logarithm
    per key. Later keys that no head looks at are left out.

    Args:
        probabilities: attention, (batch, heads, queries, keys), rows sum to one.
        counted: which query positions count, (batch, queries), bool.

    Returns:
        (heads, heads), symmetric, zero diagonal, float32; divide by the positions for the mean.

    Source: the output-approximation paper, Eq. 1.
    """
    total = distances(probabilities, counted)
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
        text: the name of the text, stored with the result.

    Returns:
        (layers, heads, heads); a layer with fewer heads than another is filled up with NaN.

    Raises:
        NotPrunableError: the model has no attention, or a block does not show its probabilities.
        DataError: nothing but special tokens.
    """
    divergences, done = Divergences(model, graph), 0
    with divergences.watch(), torch.inference_mode():
        for batch in windows.split(batch_size):
            ids = batch.to(model.device)
            with divergences.batch(~special_positions(model, ids)):
                model.base_model(input_ids=ids, use_cache=False)
            done += len(batch)
            if on_progress is not None:
                on_progress(done, len(windows))
    means = divergences.means()
    return Similarity(_stack(means), sorted(means), divergences.tokens, text)


class Divergences:
    """Distances of all pairs of heads, collected layer by layer while the model runs.

    Raises:
        NotPrunableError: the model has no attention, or a block does not show its probabilities.
    """

    def __init__(self, model: PreTrainedModel, graph: Graph) -> None:
        if not graph.attentions:
            raise NotPrunableError(f"{graph.model} has no attention blocks whose heads could be compared.")
        self.model, self.graph, self.tokens = model, graph, 0
        self._totals: dict[int, Tensor] = {}
        self._counted: Tensor = torch.ones(0, dtype=torch.bool)
        self._seen: set[int] = set()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Collect for the length of a `with` block; the model attends in the plain way meanwhile."""
        hooks = (
            self.model.get_submodule(attention.module).register_forward_hook(self._adding(attention))
            for attention in self.graph.attentions
        )
        with attending_plainly(self.model), hooked(hooks):
            yield

    @contextmanager
    def batch(self, counted: Tensor) -> Iterator[None]:
        """Around one forward: `counted` says which positions count, (batch, length), bool."""
        self._counted, self._seen = counted, set()
        yield
        for attention in self.graph.attentions:
            if attention.layer not in self._seen:
                raise NotPrunableError(
                    f"{attention.module} does not return its attention, so its heads cannot be compared."
                )
        self.tokens += int(counted.sum())

    def means(self) -> dict[int, Tensor]:
        """Mean distance per layer, (heads, heads). Raises DataError if no position counted."""
        if not self.tokens:
            raise DataError("The calibration text holds nothing but special tokens; give another text.")
        return {layer: (total / self.tokens).cpu() for layer, total in self._totals.items()}

    def _adding(self, attention: Attention) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, args: Any, out: Any) -> None:
            batch, queries = self._counted.shape
            shape = (batch, attention.heads, queries, queries)
            probabilities = probabilities_of(out, shape)
            if probabilities is not None:
                apart = js_distances(probabilities.detach(), self._counted)
                total = self._totals.get(attention.layer)
                self._totals[attention.layer] = apart if total is None else total + apart
                self._seen.add(attention.layer)

        return hook


def probabilities_of(out: Any, shape: tuple[int, ...]) -> Tensor | None:
    """The attention probabilities among what a block returns: the tensor of this shape, or None.

    Args:
        shape: (batch, heads, queries, keys).
    """
    for item in out if isinstance(out, tuple) else ():
        if isinstance(item, Tensor) and tuple(item.shape) == shape:
            return item
    return None


def _stack(means: dict[int, Tensor]) -> np.ndarray[Any, np.dtype[np.float32]]:
    heads = max(len(mean) for mean in means.values())
    stacked = np.full((len(means), heads, heads), np.nan, dtype=np.float32)
    for row, layer in enumerate(sorted(means)):
        mean = means[layer].numpy()
        stacked[row, : len(mean), : len(mean)] = mean
    return stacked


@contextmanager
def attending_plainly(model: PreTrainedModel) -> Iterator[None]:
    """Let the model attend in the plain (eager) way, in evaluation mode; afterwards all is as it was."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with evaluating(model):
            yield
    finally:
        model.set_attn_implementation(before)
