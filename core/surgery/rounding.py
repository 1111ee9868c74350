"""Rounding let loose on a model, to see what it can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from core.graph.hooks import hooked


class Rounding:
    """Takes numbers off by half a unit of rounding to a whole one, up or down, the same for every start."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def of(self, values: Any, unit: float) -> Any:
        """Floating-point numbers, each off by a share of itself; anything else as it is.

        Args:
            unit: of rounding, relative to a number.
        """
        if isinstance(values, tuple):
            return tuple(self.of(value, unit) for value in values)
        if not isinstance(values, Tensor) or not values.is_floating_point():
            return values
        drawn = torch.rand(values.shape, generator=self._generator, dtype=torch.float64) - 0.5
        off = unit * (drawn + 0.5 * drawn.sign())
        return values + values * off.to(values.device, values.dtype)


@contextmanager
def let_loose(model: nn.Module, unit: Callable[[str], float]) -> Iterator[Rounding]:
    """For the length of a `with` block, whatever a module with weights gives is off by a unit of rounding.

    Args:
        unit: that of a module, by its name.
    """
    rounding, hooks = Rounding(), []
    for name, module in model.named_modules():
        if next(module.children(), None) is None and next(module.parameters(), None) is not None:
            own = unit(name)
            hooks.append(module.register_forward_hook(lambda _, args, out, own=own: rounding.of(out, own)))
    with hooked(hooks):
        yield rounding
