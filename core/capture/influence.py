"""Block influence: how far a layer, or one block of it, turns the hidden states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from core.graph.hooks import evaluating, hooked
from core.graph.records import BLOCKS, Bypass, Graph, Group

#: What a layer's input and the terms of its blocks may be off its output, as a share of it.
_OFF = 1e-2


def block_influence(
    model: PreTrainedModel,
    graph: Graph,
    windows: Tensor,
    *,
    batch_size: int = 4,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Measure 1 - cosine between what enters and what leaves a block, the mean over all tokens.

    A layer's input and output are those of its module; a block of attention or of a feed-forward network
    turns the stream that it reads into that stream and what it adds.

    Args:
        windows: token ids, (windows, length).

    Returns:
        Block -> its influence, from 0 to 2. Blocks whose output is scaled on the way to the stream are not
        among them, since nobody sees what they add.

    Source: ShortGPT (arXiv:2403.03853), Eq. 1, for layers; blocks are our reading of it.
    """
    layers = [_Layer(graph, number) for number in range(len(graph.layer_modules))]
    hooks = [handle for layer in layers for handle in layer.hooks(model)]
    with hooked(hooks), evaluating(model), torch.no_grad():
        for start in range(0, len(windows), batch_size):
            model(input_ids=windows[start : start + batch_size].to(model.device), use_cache=False)
            if on_progress:
                on_progress(min(start + batch_size, len(windows)), len(windows))
    return {name: 1.0 - total / layer.tokens for layer in layers for name, total in layer.cosines.items()}


@dataclass
class _Layer:
    """Sums of cosines in one layer: block -> the sum over its tokens."""

    graph: Graph
    number: int
    tokens: int = 0
    cosines: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        blocks = [g for g in self.graph.of_kind(*BLOCKS) if g.layer == self.number and g.prunable]
        self._whole = next((group for group in blocks if group.kind == "layer"), None)
        self._blocks = [group for group in blocks if group.kind != "layer"]
        self._entered: Tensor | None = None
        self._terms: dict[str, Tensor] = {}
        self.cosines = {group.id: 0.0 for group in blocks}

    def hooks(self, model: nn.Module) -> list[RemovableHandle]:
        """What has to hang on the model."""
        layer = model.get_submodule(self.graph.layer_modules[self.number])
        ends = [(block, each) for block in self._blocks for each in block.bypass if each.gives != "same"]
        return [
            layer.register_forward_pre_hook(self._enter, with_kwargs=True),
            layer.register_forward_hook(self._leave),
            *(
                model.get_submodule(each.module).register_forward_hook(
                    self._adding(block, each), with_kwargs=True
                )
                for block, each in ends
            ),
        ]

    def _enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = (each for each in (*args, *kwargs.values()) if isinstance(each, Tensor) and each.dim() == 3)
        self._entered, self._terms = next(given).clone(), {}

    def _adding(self, block: Group, bypass: Bypass) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            given: Tensor = out[0] if bypass.several else out
            if bypass.gives == "stream":
                key = bypass.argument
                given = given - (args[key] if isinstance(key, int) else kwargs[key])
            self._terms[block.id] = given.clone()

        return hook

    def _leave(self, _: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        assert self._entered is not None
        entered, left = self._entered.double(), (out[0] if isinstance(out, tuple) else out).double()
        self.tokens += entered.shape[0] * entered.shape[1]
        if self._whole is not None:
            self.cosines[self._whole.id] += _cosine(entered, left)
        terms = {name: term.double().reshape(entered.shape) for name, term in self._terms.items()}
        added = entered + sum(terms.values())
        if float((added - left).norm()) > _OFF * float((left - entered).norm()):
            for block in self._blocks:
                self.cosines.pop(block.id, None)
        for block in (each for each in self._blocks if each.id in self.cosines):
            before = entered + sum(terms[name] for name in block.reads if name in terms)
            self.cosines[block.id] += _cosine(before, before + terms[block.id])


def _cosine(before: Tensor, after: Tensor) -> float:
    """The sum over all tokens of the cosine between hidden states, (batch, tokens, hidden) each."""
    return float(F.cosine_similarity(before, after, dim=-1).sum())
