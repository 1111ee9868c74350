"""FLAP: channels that hardly vary can be replaced by their mean, so fluctuation is what counts.

A criterion here is what FLAP calls a metric, a scope what it calls a structure: UL-UM is `local`, UL-MM that
with `kind_sparsity`, AL-AM is `al_am`, and AL-MM that with `kind_sparsity`. Outside `al_am` a head is worth
the sum of its channels; the release squares them there, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.criteria.registry import CRITERIA, GroupView, joined

if TYPE_CHECKING:
    from torch import Tensor

    from core.graph.records import Kind

_PAPER = "FLAP, arXiv:2312.11983"
#: Kinds whose units lie in attention, of which FLAP squares the metric.
_ATTENTION = ("query_head", "kv_group")


@CRITERIA.register(
    "ifv",
    paper=_PAPER,
    equation="Var(x_i)",
    needs=("input_variance",),
    channels=True,
    summary="How much a unit's activations vary over the text. What is constant can go if its mean is put "
    "into the bias.",
)
def ifv(group: GroupView) -> Tensor:
    """Sample variance of the input channels, (units, channels).

    Source: FLAP, Input Feature Variance. The published running update leaves the first sample out and
    subtracts a mean that it changes in place; here the variance is exact.
    """
    return joined(values for _, values in group.having("input_variance"))


@CRITERIA.register(
    "wifv",
    paper=_PAPER,
    equation="Var(x_i) |W_i|^2",
    needs=("input_variance",),
    channels=True,
    summary="The variance of a unit's activations times the squared weights that read it: what its removal "
    "costs once its mean is put into the bias. Strong without gradients.",
)
def wifv(group: GroupView) -> Tensor:
    """Input variance times the squared norm of the weight column, (units, channels).

    Source: FLAP, Weighted Input Feature Variance, its main metric.
    """
    return joined(part.weight.square().sum(dim=2) * values for part, values in group.having("input_variance"))


@CRITERIA.register(
    "wifn",
    paper=_PAPER,
    equation="mean_j |W_ij| |x_i|",
    needs=("input_norm",),
    channels=True,
    summary="FLAP's variant with norms in place of variances, a mean over outputs. Within one layer it "
    "ranks like wanda.",
)
def wifn(group: GroupView) -> Tensor:
    """Weight magnitude times input norm, mean over outputs, (units, channels).

    The norm is over all tokens; the release divides its square by the number of samples.

    Source: FLAP, Weighted Input Feature Norm.
    """
    return joined(part.weight.abs().mean(dim=2) * norm for part, norm in group.having("input_norm"))


def al_am(channels: Tensor, kind: Kind) -> Tensor:
    """How far a unit's channels stand out among those of its group, to compare units of all groups, (units,).

    The metric of a channel, squared in attention, less the mean over all channels of the group, in their
    (sample) standard deviations; a unit has the mean of its channels. A feed-forward channel is a channel by
    itself. FLAP has multi-head attention only: here a key-value group is standardised as a head is, and
    residual channels, which it leaves alone, over all that read them. A group of equal channels has zeros.

    Args:
        channels: a criterion's scores of channels, (units, channels).

    Source: FLAP, Section 3.2 (adaptive structure search, AL-AM). The square and the mean over a head are in
    its release only, `lib/prune.py`.
    """
    metric = channels.double()
    if kind in _ATTENTION:
        metric = metric.square()
    off = metric - metric.mean()
    spread = metric.std() if metric.numel() > 1 else off.sum()
    return (off / spread if spread > 0 else off * 0).mean(dim=1)
