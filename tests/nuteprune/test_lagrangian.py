"""The multipliers: up the gradient of Eq. 11, within bounds, and a target that rises in a line."""

from __future__ import annotations

import pytest
import torch

from core.nuteprune.lagrangian import Lagrangian, highest, warm_up


def test_the_push_is_the_derivative_of_eq_11() -> None:
    held = Lagrangian(rate=1.0, bound=10.0, linear=-2.0, quadratic=3.0, pull=7.0)
    sparsity = torch.tensor(0.1, requires_grad=True)
    miss = sparsity - 0.3
    (7.0 * (-2.0 * miss + 3.0 * miss.square())).backward()
    assert sparsity.grad is not None and held.push(0.1, 0.3) == pytest.approx(float(sparsity.grad))


def test_the_push_is_bounded_by_the_pull_of_the_loss() -> None:
    held = Lagrangian(rate=1.0, bound=3.0, linear=-3.0, quadratic=highest(3.0))
    held.feel(torch.tensor([1.0, -3.0]), torch.tensor([-0.25, -0.25]))
    assert held.pull == pytest.approx(8.0)
    assert held.push(0.0, 0.5) == -24.0 and held.push(1.0, 0.5) == 24.0
    held.feel(torch.zeros(2), torch.ones(2))
    assert held.pull == pytest.approx(7.2)  # one batch does not say it all


def test_multipliers_climb_their_own_gradient() -> None:
    held = Lagrangian(rate=0.5, bound=10.0)
    held.ascend(0.1, 0.3)
    assert (held.linear, held.quadratic) == (pytest.approx(-0.1), pytest.approx(0.02))


def test_a_target_missed_for_long_winds_nothing_up() -> None:
    held = Lagrangian(rate=5.0, bound=2.0, pull=1.0)
    for _ in range(1000):
        held.ascend(0.0, 0.5)
    assert held.linear == -2.0 and held.quadratic == highest(2.0)
    held.ascend(0.52, 0.5)
    assert held.push(0.56, 0.5) > 0  # turned round at once, not a thousand steps later


def test_the_target_rises_in_a_line_and_stays() -> None:
    assert [warm_up(0.4, step, 4) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert warm_up(0.4, 0, 0) == 0.4
