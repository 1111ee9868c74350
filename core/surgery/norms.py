"""What a norm does, learned by trying it: whether it subtracts the mean, whether it adds one to its weight.

Trying works for classes nobody listed, and on models without weights: a small copy of the module
with known weights is fed two vectors.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from core.surgery.modeling_pruned import Scaled


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a leaf with a weight along the channels and an epsilon that guards a division."""
    weight = getattr(module, "weight", None)
    leaf = next(module.children(), None) is None
    return leaf and isinstance(weight, Tensor) and weight.dim() == 1 and epsilon_of(module) is not None


def epsilon_of(module: nn.Module) -> str | None:
    """The attribute that holds the epsilon, or None."""
    names = [name for name, value in vars(module).items() if "eps" in name and isinstance(value, float)]
    return names[0] if names else None


def subtracts_mean(module: nn.Module, channels: int | None = None) -> bool:
    """Whether adding a constant to all channels changes nothing, as in a layer norm.

    Args:
        channels: how many the module takes; a norm with a weight says so itself.
    """
    probe, x = _probe(module, fill=1.0, channels=channels)
    return torch.allclose(probe(x), probe(x + 3.0), atol=1e-3)


def adds_one(module: nn.Module) -> bool:
    """Whether the weight is stored as the difference from one: zeros then still let the input through."""
    probe, x = _probe(module, fill=0.0)
    return bool(probe(x).abs().max() > 0.1)


def shrink_rms(module: nn.Module, dense: int, left: int) -> None:
    """Make a root-mean-square norm over `left` channels equal the one over `dense`, the rest being zero.

    With d channels of which k stay: w sqrt(d/k) x / sqrt(S/k + eps d/k) = w x / sqrt(S/d + eps).
    """
    ratio = dense / left
    name = epsilon_of(module)
    assert name is not None
    setattr(module, name, getattr(module, name) * ratio)
    offset = 1.0 if adds_one(module) else 0.0
    weight = module.weight
    assert isinstance(weight, Tensor)
    with torch.no_grad():
        weight.copy_((weight.float() + offset) * math.sqrt(ratio) - offset)


def shrink_plain(module: nn.Module, dense: int, left: int) -> None:
    """Make a norm without a weight take `left` channels; a root-mean-square norm then equals the dense one.

    With no weight to scale, its result is scaled instead, by sqrt(d/k).
    """
    centred = subtracts_mean(module, dense)
    for name, value in list(vars(module).items()):
        if value == (dense,) or (type(value) is int and value == dense):
            setattr(module, name, (left,) if isinstance(value, tuple) else left)
    if centred:
        return
    epsilon = epsilon_of(module)
    if epsilon is not None:
        setattr(module, epsilon, getattr(module, epsilon) * dense / left)
    module.register_forward_hook(Scaled(math.sqrt(dense / left)))


def _probe(module: nn.Module, *, fill: float, channels: int | None = None) -> tuple[nn.Module, Tensor]:
    """A copy on the CPU with its weight filled and its bias zero, and an input, (1, channels)."""
    memo = {id(p): nn.Parameter(torch.empty(p.shape)) for p in module.parameters()}
    probe = copy.deepcopy(module, memo)
    probe._forward_hooks.clear()
    probe._forward_pre_hooks.clear()
    with torch.no_grad():
        for name, parameter in probe.named_parameters():
            parameter.fill_(fill if name == "weight" else 0.0)
    width = channels if channels is not None else next(iter(probe.parameters())).shape[-1]
    x = torch.linspace(-1.0, 1.5, width).unsqueeze(0)
    with torch.no_grad():
        return probe, x
