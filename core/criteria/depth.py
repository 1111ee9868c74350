"""Whole layers instead of units: what pruning by worth is compared with at equal size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.criteria.registry import CRITERIA, GroupView

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "alternate_layers",
    paper="DistilBERT, arXiv:1910.01108, as LLM-Pruner's Table 8 compares with it",
    equation="0 in every second layer, 1 elsewhere",
    summary="Takes every second layer whole, but for one unit of each group, and at half of the parameters "
    "hardly anything else. It ranks layers, not units, so it needs scope raw.",
    scopes=("raw",),
)
def alternate_layers(group: GroupView) -> Tensor:
    """0 for every unit of the layers 1, 3, 5, … and 1 for all others, (units,).

    Source: DistilBERT, Section 3, takes one layer out of two of its teacher.
    """
    import torch

    goes = group.layer is not None and group.layer % 2 == 1
    return torch.full((group.units,), 0.0 if goes else 1.0)
