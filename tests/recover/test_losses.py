"""The losses equal their definitions, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from core.recover import losses
from core.recover.losses import distillation, kept_distillation, layer_loss, relative_layer_loss


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


@pytest.mark.parametrize("chunk", [7, 2**20])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_what_was_kept_teaches_its_tokens_and_all_others_together(
    temperature: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Value and gradient of the divergence of the outcomes that are left, written out in float64."""
    monkeypatch.setattr(losses, "_CHUNK_ELEMENTS", chunk)
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 6, requires_grad=True), torch.randn(2, 3, 6)
    counted = torch.tensor([[True, True, False], [False, True, False]])
    values, tops = (teacher[counted] / temperature).log_softmax(-1).topk(2)
    again = student.detach().double().requires_grad_()
    p = (teacher[counted].double() / temperature).softmax(-1)
    q = (again[counted] / temperature).softmax(-1)
    rows = []
    for position, named in enumerate(tops.tolist()):
        others = [token for token in range(6) if token not in named]
        outcomes = [(p[position, token], q[position, token]) for token in named]
        outcomes.append((p[position, others].sum(), q[position, others].sum()))
        rows.append(sum(a * (a / b).log() for a, b in outcomes))
    wanted = temperature**2 * torch.stack(rows).mean()
    (3 * wanted).backward()
    loss = kept_distillation(student, values, tops, temperature, counted)
    (3 * loss).backward()
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert again.grad is not None and student.grad is not None
    assert torch.allclose(student.grad.double(), again.grad, atol=1e-5)


def test_all_tokens_kept_teach_what_the_model_teaches() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 9), torch.randn(2, 4, 9)
    counted = torch.rand(2, 4) > 0.3
    values, tops = teacher[counted].log_softmax(-1).topk(9)
    whole = distillation(student, teacher.clone(), 1.0, counted)
    assert float(kept_distillation(student, values, tops, 1.0, counted)) == pytest.approx(
        float(whole), rel=1e-5
    )
    few = kept_distillation(student, values[:, :2], tops[:, :2], 1.0, counted)
    assert 0 < float(few) < float(whole)


def test_positions_that_do_not_count_teach_nothing() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 3, 5, requires_grad=True), torch.randn(1, 3, 5)
    counted = torch.tensor([[True, False, True]])
    loss = distillation(student, teacher.clone(), 1.0, counted)
    loss.backward()
    alone = distillation(student.detach()[:, ::2], teacher[:, ::2].clone(), 1.0)
    assert float(loss.detach()) == pytest.approx(float(alone), rel=1e-5)
    assert student.grad is not None and not student.grad[:, 1].any() and student.grad[:, 0].any()


def test_the_relative_layer_loss_is_the_variance_left_over() -> None:
    """The mean of 1 - R squared over layers, whatever their size; closed channels count on neither side."""
    torch.manual_seed(0)
    theirs = [torch.randn(2, 3, 4).double(), 1000 * torch.randn(2, 3, 4).double() + 50]
    ours = [layer + size * torch.randn(2, 3, 4) for layer, size in zip(theirs, (0.5, 300.0), strict=True)]
    for layer in ours:
        layer[..., 1] = 0.0
    stays = [0, 2, 3]
    wanted = [
        (a - b)[..., stays].square().mean() / b[..., stays].var(correction=0)
        for a, b in zip(ours, theirs, strict=True)
    ]
    loss = relative_layer_loss([a.float() for a in ours], [b.float() for b in theirs])
    assert float(loss) == pytest.approx(float(sum(wanted) / 2), rel=1e-5)
