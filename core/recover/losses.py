"""What a student learns from its teacher: the divergence of their answers, and what their layers give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

#: Logits looked at a time: on the CPU they stay in its cache; elsewhere few large steps keep the device busy,
#: and what they make in between stays below a GiB. No second copy of all of them is made.
_CHUNK_ELEMENTS, _CHUNK_ELEMENTS_DEVICE = 2**20, 2**25
#: Below this a probability is taken for rounding.
_LEAST = 1e-7


def distillation(
    student: Float[Tensor, "batch length vocabulary"],
    teacher: Float[Tensor, "batch length vocabulary"],
    temperature: float,
    counted: Bool[Tensor, "batch length"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over positions of KL(teacher || student) at a temperature, times its square (NutePrune, Eq. 5).

    The square keeps gradients of the same size at any temperature (Hinton et al.). The gradient is worked out
    along with the loss and kept **in the memory of the teacher's logits**, which are of no use afterwards.

    Args:
        student, teacher: logits, (batch, length, vocabulary); the teacher's are overwritten.
        counted: the positions that count, (batch, length); None for all.
    """
    loss: Tensor = _Distillation.apply(student, teacher, temperature, counted)
    return loss


class _Distillation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, temperature: float, counted: Tensor | None
    ) -> Tensor:
        vocabulary = student.shape[-1]
        ours, theirs = student.reshape(-1, vocabulary), teacher.reshape(-1, vocabulary)  # (positions, …)
        weights = torch.ones(len(ours), 1, device=ours.device)
        if counted is not None:
            weights = counted.reshape(-1, 1).to(torch.float32)
        count, total = weights.sum().clamp_min(1), _sum_on(ours.device)
        step = _positions(ours.device, vocabulary)
        for first in range(0, len(ours), step):
            chunk = slice(first, first + step)
            log_q = (ours[chunk].float() / temperature).log_softmax(dim=-1)
            log_p = (theirs[chunk].float() / temperature).log_softmax(dim=-1)
            p = log_p.exp()
            total += (p * (log_p - log_q) * weights[chunk]).sum(dtype=total.dtype)
            gradient = (log_q.exp() - p) * (weights[chunk] * (temperature / count))
            theirs[chunk] = gradient.to(teacher.dtype)
        ctx.save_for_backward(theirs.view(student.shape))
        return (total * temperature**2 / count).to(torch.float32)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(upstream.to(gradient.dtype)), None, None, None


def kept_distillation(
    student: Float[Tensor, "batch length vocabulary"],
    values: Float[Tensor, "positions k"],
    indices: Int[Tensor, "positions k"],
    temperature: float,
    counted: Bool[Tensor, "batch length"],
) -> Float[Tensor, ""]:
    """As `distillation`, of the k likeliest tokens of the teacher one by one and all others together.

    With p_R and q_R what teacher and student give to all others, it is sum_k p log(p / q) +
    p_R log(p_R / q_R): never more than the divergence of all tokens, and equal to it where the others share
    p_R and q_R alike.

    Args:
        values: the teacher's log-probabilities at this temperature of its k likeliest tokens, `indices`, at
            every position that counts, in their order; counted: which those are, (batch, length).
    """
    loss: Tensor = _KeptDistillation.apply(student, values, indices, temperature, counted)
    return loss


class _KeptDistillation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student: Tensor, values: Tensor, indices: Tensor, temperature: float, counted: Tensor
    ) -> Tensor:
        ours = student.reshape(-1, student.shape[-1])  # (positions, vocabulary)
        rows, gradient = counted.reshape(-1).nonzero().squeeze(1), torch.zeros_like(ours)
        count, step = max(1, len(rows)), _positions(ours.device, student.shape[-1])
        total = _sum_on(ours.device)
        for first in range(0, len(rows), step):
            chunk = slice(first, first + step)
            log_q = (ours[rows[chunk]].float() / temperature).log_softmax(dim=-1)
            log_p, tops = values[chunk].float(), indices[chunk]
            p, q, log_top = log_p.exp(), log_q.exp(), log_q.gather(1, tops)
            p_rest = (1 - p.sum(dim=1, keepdim=True)).clamp_min(_LEAST)
            q_rest = (1 - log_top.exp().sum(dim=1, keepdim=True)).clamp_min(_LEAST)
            apart = (p * (log_p - log_top)).sum() + (p_rest * (p_rest / q_rest).log()).sum()
            total += apart.to(total.dtype)
            slope = (q * (1 - p_rest / q_rest)).scatter(1, tops, log_top.exp() - p)
            gradient[rows[chunk]] = (slope * (temperature / count)).to(gradient.dtype)
        ctx.save_for_backward(gradient.view(student.shape))
        return (total * (temperature**2 / count)).to(torch.float32)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(upstream.to(gradient.dtype)), None, None, None, None


def _positions(device: torch.device, vocabulary: int) -> int:
    """How many positions are looked at a time."""
    return max(1, (_CHUNK_ELEMENTS if device.type == "cpu" else _CHUNK_ELEMENTS_DEVICE) // vocabulary)


def _sum_on(device: torch.device) -> Tensor:
    """A zero to add to, where the numbers are: to fetch every part would let the device wait each time."""
    exact = torch.float32 if device.type == "mps" else torch.float64
    return torch.zeros((), dtype=exact, device=device)


def layer_loss(
    student: Sequence[Float[Tensor, "batch length hidden"]],
    teacher: Sequence[Float[Tensor, "batch length hidden"]],
) -> Float[Tensor, ""]:
    """Sum over decoder layers of the mean squared difference of what they give (NutePrune, Eq. 6).

    The mean runs over what is left of the student: where it gives exactly 0, its hidden channel is closed in
    this step, and there is nothing to learn (as released).

    Args:
        student, teacher: the output of every layer, each (batch, length, hidden).
    """
    pairs = zip(student, teacher, strict=True)
    return torch.stack([_left_apart(ours.float(), theirs.float()) for ours, theirs in pairs]).sum()


def relative_layer_loss(
    student: Sequence[Float[Tensor, "batch length hidden"]],
    teacher: Sequence[Float[Tensor, "batch length hidden"]],
) -> Float[Tensor, ""]:
    """Mean over decoder layers of the same, as a share of the variance of what the teacher's layer gives.

    Ours: layers of a trained model differ in size by thousands, and in Eq. 6 the largest is all that counts.
    Mean and variance run over what is left of the student, as there; over one layer it is 1 minus R squared.
    """
    shares = []
    for ours, theirs in zip(student, teacher, strict=True):
        left, whole = ours.detach() != 0, theirs.detach().float()
        count = left.sum().clamp_min(1)
        mean = (whole * left).sum() / count
        variance = ((whole - mean) * left).square().sum() / count
        shares.append(_left_apart(ours.float(), whole) / variance.clamp_min(torch.finfo(torch.float32).tiny))
    return torch.stack(shares).mean()


def _left_apart(ours: Tensor, theirs: Tensor) -> Tensor:
    left = ours.detach() != 0
    return ((ours - theirs) * left).square().sum() / left.sum().clamp_min(1)
