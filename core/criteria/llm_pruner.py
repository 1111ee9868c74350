"""LLM-Pruner: the importance of a coupled structure, aggregated over all that goes with a unit.

The loss L(D) of Eq. 3 to 5 is the mean over the samples of each one's mean next-token loss, as released.
Its gradient g is the mean of theirs, and the Hessian's diagonal, put as Fisher information, is F, the mean
of their squares. Eq. 5 prints a sum over samples in the second term: with the loss as a sum over samples
both terms are N times ours, which ranks alike. Two variants take the absolute value sample by sample
instead, and say so in their names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.checked import checked
from core.criteria.registry import CRITERIA, GroupView, Part, summed
from core.option import option

if TYPE_CHECKING:
    from torch import Tensor

_PAPER = "LLM-Pruner, arXiv:2305.11627"
_MATRICES = ("layer1", "layer2", "embedding", "router")


@checked
class Aggregation:
    """Section 3.2, Group Importance."""

    aggregation: str = option(
        "sum",
        "how the structures of a unit are combined: their sum, product, largest, or the last one executed",
        choices=("sum", "prod", "max", "last"),
    )


@checked
class VectorAggregation(Aggregation):
    """And what a vector is, in Eq. 3."""

    vector: str = option(
        "neuron",
        "what is summed with its sign: the weights of a neuron in a matrix, as released, where a head adds "
        "up the sizes of its neurons; or of the structure, a head's whole slice of a matrix",
        choices=("neuron", "structure"),
    )


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
    return summed([part.share * part.weight.abs().sum(dim=(1, 2)) for part in group.parts])


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
    squares = [part.share * part.weight.square().sum(dim=(1, 2)) for part in group.parts]
    return summed(squares).sqrt()


@CRITERIA.register(
    "taylor_first",
    paper=_PAPER,
    equation="Eq. 4 and 5, first order: sum |w g|",
    needs=("gradient_first",),
    options=Aggregation,
    summary="Estimates how much the loss on the calibration data changes without a unit, weight by weight, "
    "from one backward over all of it. What its paper votes for.",
)
def taylor_first(group: GroupView) -> Tensor:
    """Sum of |w g| over each structure, aggregated, (units,), g the gradient over all samples.

    The samples are added up before the absolute value is taken, so the scores do not depend on how many go
    through the model at once.

    Source: LLM-Pruner, Eq. 5 without its second-order term.
    """
    return aggregated(group, structures(group, "gradient_first"))


@CRITERIA.register(
    "taylor_first_per_sample",
    paper=f"variant of {_PAPER}",
    equation="Eq. 5, first order, sample by sample: mean of sum |w g_s|",
    needs=("gradient_first_per_sample",),
    options=Aggregation,
    summary="As taylor_first, with the absolute value taken for every sample: weights that pull in opposite "
    "ways on different texts count. Each gradient is freed at once, however many samples there are.",
)
def taylor_first_per_sample(group: GroupView) -> Tensor:
    """Sum of |w g_s| over each structure, aggregated, (units,): mean over samples s.

    Source: LLM-Pruner, Eq. 5 without its second-order term, taken for one sample at a time, which the paper
    does not do.
    """
    return aggregated(group, structures(group, "gradient_first_per_sample"))


@CRITERIA.register(
    "taylor_second",
    paper=_PAPER,
    equation="Eq. 4 and 5, second order: sum w^2 F",
    needs=("gradient_second",),
    options=Aggregation,
    summary="The curvature part of the estimate: squared weights times the Fisher information, from the "
    "squared gradient of every sample. Sees weights whose gradients cancel between samples.",
)
def taylor_second(group: GroupView) -> Tensor:
    """Sum of w^2 F over each structure, aggregated, (units,), F the mean of squared per-sample gradients.

    Eq. 5 puts the Fisher diagonal F for the Hessian's; its factor 1/2 ranks no differently and is left
    out, as is usual.

    Source: LLM-Pruner, Eq. 5, second-order term.
    """
    return aggregated(group, structures(group, "gradient_second"))


@CRITERIA.register(
    "taylor_mix",
    paper=_PAPER,
    equation="Eq. 5: sum |w g - w^2 F / 2|",
    needs=("gradient_mix",),
    options=Aggregation,
    summary="First and second order together, weight by weight, over all of the calibration data. Needs a "
    "backward per sample, and keeps a number for every weight until the last.",
)
def taylor_mix(group: GroupView) -> Tensor:
    """Sum of |w g - w^2 F / 2| over each structure, aggregated, (units,).

    g is the mean of the per-sample gradients and F that of their squares, so what is inside is the mean over
    samples of w g_s - (w g_s)^2 / 2, added up with its sign before the absolute value is taken.

    Source: LLM-Pruner, Eq. 5.
    """
    return aggregated(group, structures(group, "gradient_mix"))


@CRITERIA.register(
    "taylor_mix_per_sample",
    paper=f"variant of {_PAPER}",
    equation="Eq. 5, sample by sample: mean of sum |w g_s - (w g_s)^2 / 2|",
    needs=("gradient_mix_per_sample",),
    options=Aggregation,
    summary="As taylor_mix, with the absolute value taken for every sample: the fine part of fusion. Close "
    "to taylor_first_per_sample where gradients are small.",
)
def taylor_mix_per_sample(group: GroupView) -> Tensor:
    """Sum of |w g_s - (w g_s)^2 / 2| over each structure, aggregated, (units,): mean over samples s.

    With F of one sample, w^2 F is (w g_s)^2.

    Source: LLM-Pruner, Eq. 5, taken for one sample at a time, which the paper does not do.
    """
    return aggregated(group, structures(group, "gradient_mix_per_sample"))


@CRITERIA.register(
    "taylor_vector",
    paper=_PAPER,
    equation="Eq. 3, first order: |sum w g|",
    needs=("gradient_sum",),
    options=VectorAggregation,
    summary="Estimates the change of the loss for all weights of a neuron together, so that effects of "
    "opposite sign cancel. Coarser than taylor_first.",
)
def taylor_vector(group: GroupView) -> Tensor:
    """|Sum of w g| of each structure, aggregated, (units,), g the gradient over all samples.

    The option `vector` says of what the sum is taken with its sign. As released, of a neuron's weights in one
    matrix, and a head is worth the sum over its neurons; or of the structure W_i as a whole, for a head its
    slice of one matrix, which is Eq. 3 to the letter. Of an FFN channel both are the same.

    Source: LLM-Pruner, Eq. 3; its Hessian term is left out there too, being impractical.
    """
    whole = group.options.vector == "structure"
    signed = group.having("gradient_sum")
    sizes = [(part, (v.sum(dim=1).abs() if whole else v.abs().sum(dim=1))) for part, v in signed]
    return aggregated(group, sizes)


def structures(group: GroupView, statistic: str) -> list[tuple[Part, Tensor]]:
    """Each structure with the sum of a statistic over it, (units,)."""
    return [
        (part, values.sum(dim=1) if values.dim() == 2 else values) for part, values in group.having(statistic)
    ]


def aggregated(group: GroupView, importance: list[tuple[Part, Tensor]]) -> Tensor:
    """Combine the importance of a unit's structures as the option `aggregation` says, (units,).

    `prod` is the geometric mean of the structures, which ranks as their product and does not underflow.
    Biases and norms count in the sum and the maximum only: they are not structures of their
    own, and a key's bias, whose gradient is always zero, would make every product zero. `last` is the
    last matrix that reads the unit.

    Args:
        importance: one number per unit, (units,), for each structure.

    Source: LLM-Pruner, Section 3.2, Group Importance.
    """
    import torch

    shares = [(part.role, part.share * values) for part, values in importance]
    match group.options.aggregation:
        case "prod":
            matrices = torch.stack([values for role, values in shares if role in _MATRICES])
            return matrices.double().log().mean(dim=0).exp()
        case "max":
            return torch.stack([values for _, values in shares]).amax(dim=0)
        case "last":
            return [values for role, values in shares if role in ("layer2", "embedding")][-1]
    return summed([values for _, values in shares])
