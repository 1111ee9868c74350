"""Wanda-sp: weights times the size of what they read, summed per channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.criteria.registry import CRITERIA, GroupView, joined

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "wanda",
    paper="Wanda, arXiv:2306.11695; structured as Wanda-sp in FLAP, arXiv:2312.11983",
    equation="sum_j |W_ij| |x_i|",
    needs=("input_norm",),
    channels=True,
    summary="Weights that read large activations are worth more than weights alone tell. One forward pass, "
    "summed over the outputs of the layer that reads the unit.",
)
def wanda(group: GroupView) -> Tensor:
    """Weight magnitude times input norm, summed over outputs, (units, channels).

    Source: Wanda, Eq. 1 scores one weight, |W_ij| ||x_j||_2; Wanda-sp adds up a unit's weights in the layer
    that reads it. Its release takes the mean over outputs, prunes each layer before it looks at the next, and
    gives every layer the same share: here that is `local` scope without the new look.
    """
    return joined(part.weight.abs().sum(dim=2) * norm for part, norm in group.having("input_norm"))
