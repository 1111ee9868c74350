"""Greedy output approximation: what a unit adds to the output of its depth-2 module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.checked import checked
from core.criteria.registry import CRITERIA, GroupView, Part, joined, summed
from core.errors import DataError
from core.option import option
from core.results.similarity import algorithm_1
from core.spec.explore import TAU

if TYPE_CHECKING:
    from torch import Tensor

_PAPER = "Greedy output approximation, arXiv:2407.19126"
_NEEDS = ("input_second_moment", "output_second_moment")
#: Eq. 3: with ReLU half of the second moment survives; GeLU and SiLU are treated alike.
_ACTIVATED = 0.5


@CRITERIA.register(
    "second_moment",
    paper=_PAPER,
    equation="Eq. 3, Appendix 7.1 and 7.2: |B_i|^2 (A_i' S A_i)",
    needs=_NEEDS,
    summary="How much a unit adds to the output of its module: the size of what is made times the weights "
    "that read it. Needs one forward pass and no gradients.",
)
def second_moment(group: GroupView) -> Tensor:
    """||B_i||^2 (A_i' S A_i) per unit, (units,), S = E[x x'] the second moment of the module's input.

    A_i' S A_i is E[(A_i' x)^2], the second moment of what layer 1 makes, so S itself, (d, d), need not be
    kept: the outputs of layer 1 are watched. A bias of layer 1 is part of that output, as if x had a
    constant component.

    - Plain feed-forward: half of it, for the activation between (Eq. 3).
    - Gated feed-forward: the product of the metrics of the two modules that share B (Appendix 7.2).
    - Attention: a head's channels are depth-2 modules on the attention-mixed input x^ (Appendix 7.1).
      Mixing rows commutes with W_V, so (A_i' x^) is what the output projection reads, and its second
      moment is taken there; a head is the sum over its channels.
    - Residual channels, which the paper does not cover: the same sum over all that reads them.

    Source: the output-approximation paper, Eq. 2 and 3, Appendix 7.
    """
    if group.kind == "ffn_channel":
        outputs = [values for part, values in group.having("output_second_moment") if part.role == "layer1"]
        return _feed_forward(group, joined(outputs))
    return summed(
        part.share * (_squares(part) * values).sum(dim=1)
        for part, values in group.having("input_second_moment")
    )


@CRITERIA.register(
    "second_moment_data_free",
    paper=_PAPER,
    equation="Eq. 3 with S = 1: |B_i|^2 |A_i|^2",
    summary="The second-moment criterion for when there is no data: inputs are taken as uncorrelated and of "
    "the same size. Reads the weights only.",
)
def second_moment_data_free(group: GroupView) -> Tensor:
    """`second_moment` with the identity for S, (units,): A_i' S A_i is ||A_i||^2.

    For attention A_i are the value rows; queries and keys are not in the formula.

    Source: the output-approximation paper, Section 3.2.3: "our method naturally degenerates to a function
    approximation method by assuming S is the identity matrix".

    Raises:
        DataError: the value rows of a head cannot be told from its queries and keys.
    """
    if group.kind == "ffn_channel":
        return _feed_forward(group, joined([_squares(part) for part in group.of_role("layer1")]))
    if group.kind == "residual_channel":
        readers = group.of_role("layer2")
        return summed([_squares(part).sum(dim=1) for part in readers])
    (reader,) = group.of_role("layer2")
    columns = _squares(reader)  # (units, heads of a unit * value_dim)
    rows = [_squares(part)[~part.keyed].view(group.units, -1) for part in group.of_role("layer1")]
    values = joined(rows)  # (units, value_dim)
    if not values.shape[1] or columns.shape[1] % values.shape[1]:
        raise DataError(
            f"second_moment_data_free cannot score {group.kind}: {values.shape[1]} value rows do not match "
            f"{columns.shape[1]} output columns of a unit; take second_moment, which reads activations."
        )
    return (columns.unflatten(1, (-1, values.shape[1])) * values.unsqueeze(1)).sum(dim=(1, 2))


@checked
class SimilarHeads:
    """Algorithm 1."""

    tau: float = option(TAU, "heads closer than this distance say the same", ge=0, le=1)


@CRITERIA.register(
    "similar_heads",
    paper=_PAPER,
    equation="Eq. 1, Algorithm 1, then Eq. 3",
    needs=(*_NEEDS, "head_divergence"),
    options=SimilarHeads,
    summary="Heads that attend like another head of their layer go first, then those that add least to the "
    "output. Everything else is scored by second_moment.",
)
def similar_heads(group: GroupView) -> Tensor:
    """`second_moment`, with the heads that Algorithm 1 finds at `tau` below all others, (units,).

    Candidates keep their order among themselves: the largest score of the group is taken off. A
    key-value unit is a candidate if all its query heads are.

    Source: the output-approximation paper, Section 3.2.2: "we prioritize removing similar heads before
    eliminating those with the least importance score".
    """
    import torch

    scores = second_moment(group)
    if group.divergence is None:
        return scores
    distances, heads = group.divergence
    similar = torch.zeros(len(distances), dtype=torch.bool)
    similar[algorithm_1(distances.numpy(), group.options.tau)] = True
    first = similar[heads].all(dim=1).to(scores.device)  # (units,)
    return torch.where(first, scores - 1.001 * scores.max(), scores)


def _feed_forward(group: GroupView, outputs: Tensor) -> Tensor:
    """Product of the metrics of the modules that share B, (units,), from E[(A_i' x)^2], (units, modules)."""
    read = summed(_squares(part).sum(dim=1) for part in group.of_role("layer2"))
    return _ACTIVATED * (read.unsqueeze(1) * outputs).prod(dim=1)


def _squares(part: Part) -> Tensor:
    """Squared length of the weights of each index, (units, width)."""
    return part.weight.square().sum(dim=2)
