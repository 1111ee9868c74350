"""Factors of units as hooks: what a module is handed, gives or holds is multiplied by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from core.graph.records import Member

#: One factor per unit, (units,), or a function that every forward calls; None leaves the units alone.
Mask = Tensor | Callable[[], Tensor | None]
#: A mask and the member of the group whose units it silences.
Factor = tuple[Mask, Member]


def read(mask: Mask | None) -> Tensor | None:
    """The factors as they are now, (units,), or None."""
    return mask() if callable(mask) else mask


def opened(mask: Mask) -> Mask:
    """1 for the units whose factor is not 0."""
    if isinstance(mask, Tensor):
        return (mask != 0).float()

    def where() -> Tensor | None:
        values = mask()
        return None if values is None else (values != 0).float()

    return where


def is_binary(mask: Mask) -> bool:
    """Whether every factor is known to be 0 or 1, and none is learned."""
    return isinstance(mask, Tensor) and not mask.requires_grad and bool(((mask == 0) | (mask == 1)).all())


class Features:
    """Unit factors spread over the features they own, (size,)."""

    def __init__(self, size: int, factors: list[Factor]) -> None:
        self.size = size
        self.factors = [(mask, torch.from_numpy(member.index())) for mask, member in factors]
        self._constant: Tensor | None = None

    def like(self, x: Tensor) -> Tensor | None:
        """One factor per feature, (size,), on the device and in the dtype of `x`; None to leave all alone."""
        constant = self._constant
        if constant is not None and constant.device == x.device and constant.dtype == x.dtype:
            return constant
        total = torch.ones(self.size, dtype=torch.float32, device=x.device)
        given = [(values, index) for mask, index in self.factors if (values := read(mask)) is not None]
        if not given and self.factors:
            return None
        for values, index in given:
            spread = values.to(x.device, torch.float32).unsqueeze(1).expand(index.shape)  # (units, width)
            part = torch.ones_like(total)
            total = total * part.scatter(0, index.reshape(-1).to(x.device), spread.reshape(-1))
        total = total.to(x.dtype)
        if not any(callable(mask) or mask.requires_grad for mask, _ in self.factors):
            self._constant = total
        return total


def mask_input(owner: nn.Module, features: Features) -> RemovableHandle:
    """Multiply the last dimension of what a module is handed."""

    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0]  # (..., features)
        m = features.like(x)
        return args if m is None else (x * m, *args[1:])

    return owner.register_forward_pre_hook(hook)


def mask_output(owner: nn.Module, features: Features) -> RemovableHandle:
    """Multiply the last dimension of what a module gives."""

    def hook(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        m = features.like(out)
        return out if m is None else out * m

    return owner.register_forward_hook(hook)


def mask_weight(
    owner: nn.Module, attribute: str, dim: int, size: int, factors: list[Factor]
) -> list[RemovableHandle]:
    """For modules that multiply inside their own forward (expert stacks): lend it a masked copy."""
    experts = sorted({member.at for _, member in factors if member.at is not None})
    of_expert = {at: Features(size, [f for f in factors if f[1].at == at]) for at in experts}
    of_all = Features(size, [f for f in factors if f[1].at is None])

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        weight: Tensor = getattr(module, attribute)  # another dimension may be masked already
        rows = of_all.like(weight)  # (size,)
        if rows is None:
            return
        shape = [-1 if d == dim else 1 for d in range(weight.dim())]
        if of_expert:
            own = [of_expert[at].like(weight) if at in of_expert else None for at in range(len(weight))]
            rows = torch.stack([rows if row is None else rows * row for row in own])  # (experts, size)
            shape[0] = len(weight)
        # An instance attribute hides the parameter of the same name, which stays as it is.
        module.__dict__[attribute] = weight * rows.view(shape)

    def after(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        module.__dict__.pop(attribute, None)

    return [owner.register_forward_pre_hook(before), owner.register_forward_hook(after, always_call=True)]
