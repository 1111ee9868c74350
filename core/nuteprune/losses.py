"""What the student learns from its teacher: Eq. 5 and 6."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

#: Logits looked at a time: they stay in the cache, and no second copy of all of them is made.
_CHUNK_ELEMENTS = 2**20


def distillation(
    student: Float[Tensor, "batch length vocabulary"],
    teacher: Float[Tensor, "batch length vocabulary"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Mean over positions of KL(teacher || student) at a temperature, times its square (Eq. 5).

    The square keeps gradients of the same size at any temperature (Hinton et al.). The gradient is worked out
    along with the loss and kept **in the memory of the teacher's logits**, which are of no use afterwards.

    Args:
        student, teacher: logits, (batch, length, vocabulary); the teacher's are overwritten.
    """
    loss: Tensor = _Distillation.apply(student, teacher, temperature)
    return loss


class _Distillation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        vocabulary = student.shape[-1]
        ours, theirs = student.reshape(-1, vocabulary), teacher.reshape(-1, vocabulary)  # (positions, …)
        rows, step = len(ours), max(1, _CHUNK_ELEMENTS // vocabulary)
        total = torch.zeros((), dtype=torch.float64)
        for first in range(0, rows, step):
            chunk = slice(first, first + step)
            log_q = (ours[chunk].float() / temperature).log_softmax(dim=-1)
            log_p = (theirs[chunk].float() / temperature).log_softmax(dim=-1)
            p = log_p.exp()
            total += (p * (log_p - log_q)).sum(dtype=torch.float64).cpu()
            theirs[chunk] = ((log_q.exp() - p) * (temperature / rows)).to(teacher.dtype)
        ctx.save_for_backward(theirs.view(student.shape))
        return (total * (temperature**2 / rows)).to(student.device, torch.float32)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(upstream.to(gradient.dtype)), None, None


def layer_loss(
    student: Sequence[Float[Tensor, "batch length hidden"]],
    teacher: Sequence[Float[Tensor, "batch length hidden"]],
) -> Float[Tensor, ""]:
    """Sum over decoder layers of the mean squared difference of what they give (Eq. 6).

    The mean runs over what is left of the student: where it gives exactly 0, its hidden channel is closed in
    this step, and there is nothing to learn (as released).

    Args:
        student, teacher: the output of every layer, each (batch, length, hidden).
    """
    pairs = zip(student, teacher, strict=True)
    return torch.stack([_left_apart(ours.float(), theirs.float()) for ours, theirs in pairs]).sum()


def _left_apart(ours: Tensor, theirs: Tensor) -> Tensor:
    left = ours.detach() != 0
    return ((ours - theirs) * left).square().sum() / left.sum().clamp_min(1)
