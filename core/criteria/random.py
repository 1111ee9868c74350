"""Random scores: the baseline every criterion has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.criteria.registry import CRITERIA, GroupView

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "random",
    paper="LLM-Pruner, arXiv:2305.11627",
    equation="u ~ U(0, 1)",
    summary="Removes units at random. A criterion that is not clearly better is not worth its time.",
)
def random(group: GroupView) -> Tensor:
    """A uniform number per unit, (units,), the same for the same seed and group.

    Source: LLM-Pruner, the "Random" rows of Table 1.
    """
    import torch

    return torch.from_numpy(group.rng.random(group.units))
