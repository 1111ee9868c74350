"""The losses equal their definitions, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from core.nuteprune import losses
from core.nuteprune.losses import distillation, layer_loss


@pytest.mark.parametrize("chunk", [7, 2**20])
@pytest.mark.parametrize("temperature", [2 / 3, 1.0, 3.0])
def test_distillation_is_the_divergence_and_its_gradient(
    temperature: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_CHUNK_ELEMENTS", chunk)
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, requires_grad=True), torch.randn(2, 3, 5)
    again = student.detach().clone().requires_grad_()
    p, q = (teacher / temperature).softmax(-1), (again / temperature).softmax(-1)
    wanted = temperature**2 * (p * (p / q).log()).sum(-1).mean()
    (3 * wanted).backward()
    found = distillation(student, teacher.clone(), temperature)
    (3 * found).backward()
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert again.grad is not None and student.grad is not None
    assert torch.allclose(student.grad, again.grad, atol=1e-6)


def test_a_student_like_its_teacher_has_nothing_to_learn() -> None:
    logits = torch.randn(1, 4, 6)
    student = logits.clone().requires_grad_()
    loss = distillation(student, logits.clone(), 1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    assert student.grad is not None and float(student.grad.abs().max()) < 1e-6


def test_layer_loss_adds_up_the_layers() -> None:
    ours, theirs = [torch.randn(2, 3, 4) for _ in range(2)], [torch.randn(2, 3, 4) for _ in range(2)]
    wanted = sum(F.mse_loss(a, b) for a, b in zip(ours, theirs, strict=True))
    assert float(layer_loss(ours, theirs)) == pytest.approx(float(wanted), rel=1e-6)
