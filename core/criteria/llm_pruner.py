"""LLM-Pruner: the importance of a coupled structure, aggregated over all that goes with a unit."""

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
    summary="Estimates how much the loss changes without a unit, weight by weight, from one backward pass "
    "per sample. The usual first choice.",
)
def taylor_first(group: GroupView) -> Tensor:
    """Sum of |w g| over each structure, aggregated, (units,).

    g is the gradient of one sample's mean next-token loss, and the mean over samples is taken of |w g|,
    so that every gradient can be freed as soon as it is known; with one sample this is Eq. 5 to the
    letter, with more the equation is taken sample by sample.

    Source: LLM-Pruner, Eq. 5 without its second-order term.
    """
    return aggregated(group, structures(group, "gradient_first"))


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
    summary="First and second order together, weight by weight. Close to taylor_first where gradients are "
    "small.",
)
def taylor_mix(group: GroupView) -> Tensor:
    """Sum of |w g - (w g)^2 / 2| over each structure, aggregated, (units,): mean over samples.

    With F of one sample, w^2 F is (w g)^2: this is Eq. 5 sample by sample, see `taylor_first`.

    Source: LLM-Pruner, Eq. 5.
    """
    return aggregated(group, structures(group, "gradient_mix"))


@CRITERIA.register(
    "taylor_vector",
    paper=_PAPER,
    equation="Eq. 3, first order: |sum w g|",
    needs=("gradient_sum",),
    options=Aggregation,
    summary="Estimates the change of the loss for a structure as a whole, so that effects of opposite sign "
    "cancel. Coarser than taylor_first.",
)
def taylor_vector(group: GroupView) -> Tensor:
    """|Sum of w g| of each structure, aggregated, (units,), g the gradient over all samples.

    Source: LLM-Pruner, Eq. 3; its Hessian term is left out there too, being impractical.
    """
    signed = structures(group, "gradient_sum")
    return aggregated(group, [(part, total.abs()) for part, total in signed])


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
