"""Context managers around a model: hooks, evaluation mode, replaced forwards; afterwards it is as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def hooked(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove these hooks at the end."""
    handles = list(hooks)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def outputs_of(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect what modules give while they run, in order; of several things the first."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, args: Any, out: Any) -> None:
        outputs.append(out if isinstance(out, Tensor) else out[0])

    with hooked(module.register_forward_hook(keep) for module in modules):
        yield outputs


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; at the end the mode from before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def replaced(modules: Sequence[nn.Module], forwards: Iterable[Callable[..., Any]]) -> Iterator[None]:
    """Let each module run another forward; at the end its own."""
    before = [module.__dict__.get("forward") for module in modules]
    for module, forward in zip(modules, forwards, strict=True):
        module.__dict__["forward"] = forward
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            del module.__dict__["forward"]
            if own is not None:
                module.__dict__["forward"] = own


@contextmanager
def numbers_unseen() -> Iterator[None]:
    """Let transformers skip its shortcuts that look at the numbers in a mask, as under torch.compile.

    torch says so by a flag of its own in every release from 2.9 on; the context that sets it came with 2.13.
    """
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before
