"""Weights that rest elsewhere than where they are multiplied: each module is lent its own for its forward.

One device computes. What it cannot hold rests on other cards, in the machine's memory, or in files that are
mapped into it. Resting weights are ordinary parameters: surgery, saving and whatever else reads numbers finds
them where `named_parameters` lists them. No gradient reaches them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import StorageError

#: A place that is no device of torch: files that are mapped into memory.
DISK = "disk"
_SPREAD = "_spread"


@dataclass(frozen=True)
class Spread:
    """Where the weights of a model rest.

    Attributes:
        main: the device that computes, and where all rests that `places` does not name.
        places: parameter, by its first name -> a device's name, or `DISK`.
    """

    main: str
    places: Mapping[str, str]

    def place(self, parameter: str) -> str:
        """Where a parameter rests."""
        return self.places.get(parameter, self.main)


def spread_of(model: nn.Module) -> Spread | None:
    """Where the weights of a model rest, or None where all are where they are multiplied."""
    return vars(model).get(_SPREAD)


def rest(model: nn.Module, spread: Spread) -> None:
    """Let the weights of a model rest where `spread` says, in place; buffers go to the device that computes.

    Raises:
        StorageError: no room on the disk for those that rest there.
    """
    away = set()
    for name, parameter in model.named_parameters():
        place = spread.place(name)
        parameter.data = _in_file(parameter.data) if place == DISK else parameter.data.to(place)
        if place != spread.main:
            away.add(id(parameter))
    for module in model.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(spread.main)
        if any(id(parameter) in away for parameter in module.parameters(recurse=False)):
            lending = _Lending(spread.main)
            module.register_forward_pre_hook(lending, prepend=True)
            module.register_forward_hook(lending.take_back, always_call=True)
    vars(model)[_SPREAD] = spread


def stand_like(model: nn.Module, other: nn.Module, spread: Spread | None = None) -> None:
    """Bring a model to where another one computes, in place; its weights rest where those of the other do.

    Args:
        spread: where they rest instead, for a model whose parameters have other names.
    """
    spread = spread or spread_of(other)
    if spread is None:
        model.to(next(other.parameters()).device)
    else:
        rest(model, spread)


def device_of(model: nn.Module, parameter: Tensor) -> torch.device:
    """Where a parameter is multiplied, wherever it rests."""
    spread = spread_of(model)
    return parameter.device if spread is None else torch.device(spread.main)


@contextmanager
def lent(module: nn.Module) -> Iterator[None]:
    """Let a module have its weights where they are multiplied, for one that calls its `forward` itself."""
    lending = next((hook for hook in module._forward_pre_hooks.values() if isinstance(hook, _Lending)), None)
    if lending is None:
        yield
        return
    lending(module)
    try:
        yield
    finally:
        lending.take_back(module)


def halt(model: nn.Module, halted: bool = True) -> set[nn.Module]:
    """Lend nothing, for whoever brings weights to where they are multiplied himself; or lend again.

    Returns:
        The modules whose weights are lent otherwise.
    """
    lenders = {
        module: hook
        for module in model.modules()
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, _Lending)
    }
    for lending in lenders.values():
        lending.halted = halted
    return set(lenders)


class _Lending:
    """A forward pre-hook: a module's parameters are copies on the device that computes, until `take_back`."""

    def __init__(self, device: str) -> None:
        self.device, self.halted = device, False
        self._resting: list[dict[str, nn.Parameter | None]] = []

    def __call__(self, module: nn.Module, *_: Any) -> None:
        if self.halted:
            return
        self._resting.append(dict(module._parameters))
        for name, parameter in module._parameters.items():
            if parameter is not None:
                copied = parameter.detach().to(self.device)
                module._parameters[name] = nn.Parameter(copied, requires_grad=False)

    def take_back(self, module: nn.Module, *_: Any) -> None:
        """A forward hook: the parameters are those that rest. One that failed early was lent none."""
        if self._resting:
            module._parameters.update(self._resting.pop())


def _in_file(values: Tensor) -> Tensor:
    """The same numbers in a file that nobody else can open, and that is gone with the tensor."""
    size = values.numel() * values.element_size()
    try:
        with tempfile.NamedTemporaryFile(prefix="weights-") as file:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
            mapped = torch.from_file(file.name, shared=True, size=values.numel(), dtype=values.dtype)
    except OSError as error:
        raise StorageError(
            f"{tempfile.gettempdir()} has no room for the weights that rest on disk ({error.strerror}); set "
            "TMPDIR to a folder with more, or leave more to the devices with --max-memory."
        ) from error
    return mapped.copy_(values.flatten()).view(values.shape)
