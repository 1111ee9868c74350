"""Least squares by hand and against the definition."""

from __future__ import annotations

import pytest
import torch

from core.recover.least_squares import Normal, fit


def test_a_hand_computed_line() -> None:
    """Inputs 1 2 3, targets 3 5 7: without a bias 34/14, with one exactly 2 x + 1."""
    seen = Normal.empty(1, 1, torch.device("cpu"))
    seen.add(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[3.0], [5.0], [7.0]]))
    start = torch.zeros(1, 1)
    plain = fit(seen, None, start, biased=False, ridges=(0.0,))
    assert plain.weight.item() == pytest.approx(34 / 14) and plain.bias is None
    line = fit(seen, None, start, biased=True, ridges=(0.0,))
    assert line.bias is not None
    assert (line.weight.item(), line.bias.item()) == pytest.approx((2, 1))
    assert line.after == pytest.approx(0, abs=1e-9) and line.before == pytest.approx(8)


def test_a_fit_equals_ridge_regression_written_out() -> None:
    torch.manual_seed(0)
    a, t, start = torch.randn(60, 5).double() + 2, torch.randn(60, 3).double(), torch.randn(5, 3).double()
    seen = Normal.empty(5, 3, torch.device("cpu"))
    for part in range(0, 60, 20):
        seen.add(a[part : part + 20], t[part : part + 20])
    fitted = fit(seen, None, start, biased=True, ridges=(0.1,))
    centred, goal = a - a.mean(0), t - t.mean(0) - (a - a.mean(0)) @ start
    size = 0.1 * centred.square().sum(0).mean()
    expected = start + torch.linalg.solve(centred.T @ centred + size * torch.eye(5), centred.T @ goal)
    assert torch.allclose(fitted.weight, expected, atol=1e-4)
    assert fitted.bias is not None
    error = (a @ fitted.weight + fitted.bias - t).square().sum()
    assert fitted.after == pytest.approx(float(error), rel=1e-4) and fitted.after < fitted.before


def test_a_singular_covariance_is_said_and_solved() -> None:
    a = torch.randn(40, 1).repeat(1, 2)  # the same input twice
    seen = Normal.empty(2, 1, torch.device("cpu"))
    seen.add(a, a[:, :1] * 3)
    fitted = fit(seen, None, torch.zeros(2, 1), biased=False, ridges=(0.0,))
    assert "singular" in fitted.note and torch.isfinite(fitted.weight).all()
    assert fitted.weight.flatten().tolist() == pytest.approx([1.5, 1.5], abs=1e-2)
    nothing = Normal.empty(2, 1, torch.device("cpu"))
    nothing.add(torch.zeros(5, 2), torch.ones(5, 1))
    assert torch.equal(fit(nothing, None, torch.ones(2, 1), biased=False).weight, torch.ones(2, 1).double())


def test_windows_held_out_choose_the_ridge_and_may_refuse_every_change() -> None:
    torch.manual_seed(0)
    noise, other = (Normal.empty(30, 1, torch.device("cpu")) for _ in range(2))
    noise.add(torch.randn(31, 30), torch.randn(31, 1))  # as many tokens as unknowns: learns nothing but noise
    other.add(torch.randn(300, 30), torch.zeros(300, 1))
    refused = fit(noise, other, torch.zeros(30, 1), biased=False, ridges=(1e-4, 1e-2))
    assert refused.ridge == 0 and torch.equal(refused.weight, torch.zeros(30, 1).double())
    assert "held-out" in refused.note
