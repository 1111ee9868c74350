"""The multipliers: up the gradient of Eq. 11, within bounds, and a target that rises in a line."""

from __future__ import annotations

import pytest
import torch

from core.nuteprune.lagrangian import Lagrangian, warm_up


def test_the_penalty_is_eq_11_and_its_gradient_pushes_towards_the_target() -> None:
    held = Lagrangian(rate=1.0, bound=10.0, linear=-2.0, quadratic=3.0)
    sparsity = torch.tensor(0.1, requires_grad=True)
    penalty = held.penalty(sparsity, 0.3)
    assert float(penalty.detach()) == pytest.approx(-2.0 * -0.2 + 3.0 * 0.04)
    penalty.backward()
    assert sparsity.grad is not None and float(sparsity.grad) == pytest.approx(-2.0 + 2 * 3.0 * -0.2)


def test_multipliers_climb_their_own_gradient() -> None:
    held = Lagrangian(rate=0.5, bound=10.0)
    held.ascend(0.1, 0.3)
    assert (held.linear, held.quadratic) == (pytest.approx(-0.1), pytest.approx(0.02))


def test_a_target_missed_for_long_winds_nothing_up() -> None:
    held = Lagrangian(rate=5.0, bound=2.0)
    for _ in range(1000):
        held.ascend(0.0, 0.5)
    assert held.linear == -2.0
    turned = 0
    while held.linear < 0:
        held.ascend(0.6, 0.5)
        turned += 1
    assert turned <= 5  # not a thousand steps back


def test_the_target_rises_in_a_line_and_stays() -> None:
    assert [warm_up(0.4, step, 4) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert warm_up(0.4, 0, 0) == 0.4
