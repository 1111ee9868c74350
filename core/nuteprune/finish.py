"""From a trained twin to a model that is really smaller.

The published code multiplies by its masks for ever; here surviving factors are multiplied into the weights,
and surgery takes the rest out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from core.graph.records import Graph, Group
from core.nuteprune.gates import Gates


def final_factors(groups: Sequence[Group], gates: Gates, stays: Tensor) -> Tensor:
    """The factor of every unit once the plan is fixed, (units of all groups,), with gradient.

    0 where a unit goes; a survivor comes through with half its weight at least. Where a norm runs across the
    units, as with residual channels, survivors count in full: a factor before a norm cannot be multiplied
    into the weights of every architecture.
    """
    factors, whole = gates.median(at_least=0.0) * stays, torch.zeros_like(stays)
    for group in groups:
        if group.norms or group.kind == "residual_channel":
            whole[gates.slices[group.id]] = True
    return torch.where(whole, stays.to(factors.dtype), factors)


@torch.no_grad()
def fold(model: nn.Module, graph: Graph, factors: Mapping[str, Tensor]) -> None:
    """Multiply factors into the matrices that read the units, in place; the masks must be off.

    Args:
        factors: group id -> factor of every unit, (units,); those that go are cut afterwards.
    """
    for group_id, values in factors.items():
        for member in graph.group(group_id).members:
            if member.role == "layer2":
                whole = model.get_parameter(member.parameter)
                weight, dim = (whole, member.dim) if member.at is None else (whole[member.at], member.dim - 1)
                scale = torch.ones(weight.shape[dim], device=weight.device)
                index = torch.from_numpy(member.index()).to(weight.device)  # (units, width)
                scale[index] = values.detach().to(weight.device, torch.float32).unsqueeze(1)
                shape = [-1 if axis == dim else 1 for axis in range(weight.dim())]
                weight.mul_(scale.view(shape).to(weight.dtype))


def staying(gates: Gates, removed: Mapping[str, tuple[int, ...]]) -> Tensor:
    """True where a unit stays under a plan, (units of all groups,), on the CPU."""
    stays = torch.ones(gates.log_alpha.shape, dtype=torch.bool)
    for group, part in gates.split(stays).items():
        part[list(removed.get(group, ()))] = False
    return stays
