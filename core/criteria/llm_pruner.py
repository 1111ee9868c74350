"""LLM-Pruner: the importance of a coupled structure is the sum over all its parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from core.criteria.registry import CRITERIA, GroupView

_PAPER = "LLM-Pruner, arXiv:2305.11627"


@CRITERIA.register(
    "l1",
    paper=_PAPER,
    equation="sum |w|",
    summary="Adds up the absolute weights of everything that goes with a unit. Quick and without data, but "
    "small weights may read large activations.",
)
def l1(group: GroupView) -> Tensor:
    """Sum of |w| over the unit's slices, (units,).

    Source: magnitude pruning; LLM-Pruner, Section 4.1 compares it as weight magnitude.
    """
    return torch.stack([part.share * part.values.abs().sum(dim=1) for part in group.weights]).sum(dim=0)


@CRITERIA.register(
    "l2",
    paper=_PAPER,
    equation="sqrt(sum w^2)",
    summary="The length of all weights that go with a unit. Quick and without data; on language models it "
    "often does worse than random.",
)
def l2(group: GroupView) -> Tensor:
    """L2 norm of the coupled structure, (units,): sqrt of the sum of w^2 over the unit's slices.

    Source: LLM-Pruner, the "L2" rows of Table 1.
    """
    squares = [part.share * part.values.square().sum(dim=1) for part in group.weights]
    return torch.stack(squares).sum(dim=0).sqrt()


@CRITERIA.register(
    "taylor_first",
    paper=_PAPER,
    equation="Eq. 4 and 5, first order: sum |w g|",
    needs=("weight_gradient",),
    summary="Estimates how much the loss changes without a unit, from one backward pass over calibration "
    "text. The usual first choice.",
)
def taylor_first(group: GroupView) -> Tensor:
    """Sum of |w g| over the unit's slices, (units,), g the gradient of the mean next-token loss.

    Source: LLM-Pruner, Eq. 5 with its first-order term, summed over the coupled structure.
    """
    parts = group.statistics["weight_gradient"]
    return torch.stack([part.share * part.values.sum(dim=1) for part in parts]).sum(dim=0)
