"""FLAP: channels that hardly vary can be replaced by their mean, so fluctuation is what counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.criteria.registry import CRITERIA, GroupView, summed

if TYPE_CHECKING:
    from torch import Tensor

_PAPER = "FLAP, arXiv:2312.11983"


@CRITERIA.register(
    "ifv",
    paper=_PAPER,
    equation="Var(x_i)",
    needs=("input_variance",),
    summary="How much a unit's activations vary over the text. What is constant can go if its mean is put "
    "into the bias.",
)
def ifv(group: GroupView) -> Tensor:
    """Sample variance of the input channels, summed over the unit's channels, (units,).

    Source: FLAP, Input Feature Variance. The published running update subtracts a mean that it changes
    in place; here the variance is exact.
    """
    return summed(values.sum(dim=1) * part.share for part, values in group.having("input_variance"))


@CRITERIA.register(
    "wifv",
    paper=_PAPER,
    equation="Var(x_i) |W_i|^2",
    needs=("input_variance",),
    summary="The variance of a unit's activations times the squared weights that read it: what its removal "
    "costs once its mean is put into the bias. Strong without gradients.",
)
def wifv(group: GroupView) -> Tensor:
    """Input variance times the squared norm of the weight column, summed over the unit's channels, (units,).

    Source: FLAP, Weighted Input Feature Variance, its main metric.
    """
    return summed(
        part.share * (part.weight.square().sum(dim=2) * values).sum(dim=1)
        for part, values in group.having("input_variance")
    )


@CRITERIA.register(
    "wifn",
    paper=_PAPER,
    equation="mean_j |W_ij| |x_i|",
    needs=("input_norm",),
    summary="FLAP's variant with norms in place of variances, a mean over outputs. Within one layer it "
    "ranks like wanda.",
)
def wifn(group: GroupView) -> Tensor:
    """Weight magnitude times input norm: mean over outputs, sum over the unit's channels, (units,).

    Source: FLAP, Weighted Input Feature Norm.
    """
    return summed(
        part.share * (part.weight.abs().mean(dim=2) * norm).sum(dim=1)
        for part, norm in group.having("input_norm")
    )
