"""A model that computes in double precision for a while, without ever being held in it as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.graph.hooks import hooked

#: A parameter or buffer, and what it held before.
Lent = tuple[Tensor, Tensor]


@contextmanager
def in_float64(model: PreTrainedModel, layers: Sequence[str]) -> Iterator[None]:
    """Let a model compute in float64, for the length of a `with` block; no number of it changes.

    A decoder layer is widened while it runs, and what lies outside the layers module by module, so that
    memory holds one layer twice. Looking up an embedding is exact in any precision: only what comes out is
    widened. What the code of a model does in float32 on purpose stays in float32.

    Args:
        layers: names of the decoder layers.
    """
    with _experts_one_by_one(model), _widening(model, layers):
        yield


@contextmanager
def _experts_one_by_one(model: PreTrainedModel) -> Iterator[None]:
    """Multiply with one expert after the other: the grouped products of PyTorch know no float64."""
    before = model.get_experts_implementation()
    if set(before.values()) <= {"eager", None}:
        yield
        return
    model.set_experts_implementation("eager")
    try:
        yield
    finally:
        model.set_experts_implementation(before)


@contextmanager
def _widening(model: nn.Module, layers: Sequence[str]) -> Iterator[None]:
    lent: dict[int, list[Lent]] = {}
    whole = {id(model.get_submodule(name)) for name in layers}
    inside = {id(part) for name in layers for part in model.get_submodule(name).modules()} - whole

    def widen(parts: Sequence[nn.Module]) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            lent[id(module)] = _widen(parts)

        return hook

    def restore(module: nn.Module, *_: Any) -> None:
        _give_back(lent.pop(id(module), []))

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Embedding) and id(module) not in inside:
            hooks.append(module.register_forward_hook(lambda _, args, out: out.double()))
        elif id(module) in whole or (id(module) not in inside and _has_numbers(module)):
            parts = list(module.modules()) if id(module) in whole else [module]
            hooks += [module.register_forward_pre_hook(widen(parts)), module.register_forward_hook(restore)]
    try:
        with hooked(hooks):
            yield
    finally:
        for pairs in reversed(lent.values()):  # what was running when a forward failed
            _give_back(pairs)


def _has_numbers(module: nn.Module) -> bool:
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return any(tensor.is_floating_point() for tensor in own)


def _widen(modules: Sequence[nn.Module]) -> list[Lent]:
    pairs = []
    for module in modules:
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            if tensor.is_floating_point() and tensor.dtype != torch.float64:
                pairs.append((tensor, tensor.data))
                tensor.data = tensor.data.double()
    return pairs


def _give_back(pairs: Sequence[Lent]) -> None:
    for tensor, before in reversed(pairs):
        tensor.data = before
