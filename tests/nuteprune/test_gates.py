"""Hard-concrete gates: their distribution is that of Eq. 10, and what is said of it is what is sampled."""

from __future__ import annotations

import math

import pytest
import torch

from core.nuteprune.gates import BOUND, Gates
from core.recover.loop import generator
from tests.handmade import graph_of, tiny


def gates(log_alpha: float, units: int = 24) -> Gates:
    group = graph_of(tiny(intermediate_size=units)).group("L00.ffn_channel")
    return Gates([group], log_alpha)


def test_a_sample_is_eq_10_worked_out_by_hand() -> None:
    found = gates(0.7)
    u = torch.rand(24, generator=generator(3, 5)).tolist()
    wanted = []
    for one in u:
        s = 1 / (1 + math.exp(-(math.log(one / (1 - one)) + 0.7) / (2 / 3)))
        wanted.append(min(1.0, max(0.0, s * 1.2 - 0.1)))
    assert found.sample(generator(3, 5)).tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("log_alpha", [-3.0, -1.6, 0.0, 2.0])
def test_stay_and_median_are_those_of_the_samples(log_alpha: float) -> None:
    found = gates(log_alpha, units=20_000).requires_grad_(False)
    samples = found.sample(generator(0, 0)).detach()
    assert float((samples > 0).float().mean()) == pytest.approx(float(found.stay()[0]), abs=0.012)
    assert float(samples.median()) == pytest.approx(float(found.median()[0]), abs=0.03)


def test_a_gate_is_closed_where_it_is_rather_closed_than_open() -> None:
    for log_alpha in torch.linspace(-BOUND, BOUND, 47).tolist():
        found = gates(log_alpha, units=1).requires_grad_(False)
        assert (float(found.median()) > 0) == (float(found.stay()) > 0.5)


def test_groups_start_where_they_are_told_and_stay_within_bounds() -> None:
    graph = graph_of(tiny())
    groups = graph.of_kind("query_head", "ffn_channel")
    start = {group.id: torch.arange(group.units) - 6.0 for group in groups}
    found = Gates(groups, start)
    parts = found.split(found.log_alpha)
    assert all(torch.equal(parts[group], values) for group, values in start.items())
    found.requires_grad_(False).clamp()
    assert float(found.log_alpha.min()) == pytest.approx(-BOUND)
    assert float(found.log_alpha.max()) == pytest.approx(BOUND)


def test_gradients_reach_log_alpha() -> None:
    found = gates(0.0)
    found.sample(generator(0, 1)).sum().backward()
    assert found.log_alpha.grad is not None and float(found.log_alpha.grad.sum()) > 0


def snapshot_by_hand(log_alpha: list[float]) -> list[float]:
    """The rule of a snapshot in Python's own float64, unit by unit, for the gates of one group."""
    low, high, temperature = -0.1, 1.1, 2 / 3
    at_zero = (0 - low) / (high - low)  # where the sigmoid must be for a stretched value of 0
    logit = math.log(at_zero) - math.log(1 - at_zero)
    closed = [1 / (1 + math.exp(-(logit * temperature - value))) for value in log_alpha]
    go = round(sum(closed))
    ranked = sorted(range(len(log_alpha)), key=lambda unit: log_alpha[unit])
    factors = [1 / (1 + math.exp(-value / temperature * 0.8)) for value in log_alpha]
    return [0.0 if unit in ranked[:go] else factor for unit, factor in enumerate(factors)]


@pytest.mark.parametrize("start", [4.6, 1.5, -1.0])
def test_a_snapshot_is_the_hard_cut_of_the_released_code(start: float) -> None:
    """A grouped-query model with its hidden channels, each group by itself."""
    groups = graph_of(tiny()).of_kind("query_head", "ffn_channel", "residual_channel")
    drawn = Gates(groups, start).requires_grad_(False)
    torch.manual_seed(1)
    drawn.log_alpha += torch.randn_like(drawn.log_alpha)
    drawn.clamp()
    parts = drawn.split(drawn.cut())
    assert len(parts) == 5
    for group, values in drawn.split(drawn.log_alpha).items():
        assert parts[group].tolist() == pytest.approx(snapshot_by_hand(values.double().tolist()), abs=1e-6)


def test_a_snapshot_of_unsure_gates_is_a_pruned_model_all_the_same() -> None:
    """At log alpha 1.5 no gate is rather closed, but one in twenty is expected to be: 1,000 x 0.043."""
    drawn = gates(1.5, units=1000).requires_grad_(False)
    assert int((drawn.median() == 0).sum()) == 0
    assert int((drawn.cut() == 0).sum()) == 43 == round(1000 - float(drawn.stay().sum()))
