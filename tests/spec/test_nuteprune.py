"""What NutePrune's options say of themselves, worked out."""

from __future__ import annotations

import numpy as np
import pytest

from core.option import options_of
from core.spec.nuteprune import Settings


def test_a_held_rate_falls_once_the_plan_is_fixed() -> None:
    held, falling = (
        Settings(steps=100, settle=0.6, lora_rate=0.2, lora_schedule=name) for name in ("held", "falling")
    )
    assert held.settle_step == 40
    assert [held.lora_step(step) for step in (0, 39, 40, 70, 99)] == pytest.approx(
        [0.2, 0.2, 0.2, 0.1, 0.2 / 60]
    )
    assert [falling.lora_step(step) for step in (0, 50, 99)] == pytest.approx([0.2, 0.1, 0.002])


def test_a_rate_held_to_the_end_never_falls() -> None:
    """With `settle=0` the plan is fixed after the last step."""
    assert Settings(steps=4, settle=0.0, lora_rate=0.2, lora_schedule="held").lora_step(3) == 0.2


def test_the_boundary_that_start_speaks_of_is_where_half_of_all_samples_are_closed() -> None:
    from core.nuteprune.gates import Gates
    from tests.handmade import graph_of, tiny

    group = graph_of(tiny()).group("L00.ffn_channel")
    stay = [float(Gates([group], start).stay().detach()[0]) for start in (-1.6, -1.5, -1.7)]
    assert stay[0] == pytest.approx(0.5, abs=1e-3) and stay[1] > 0.5 > stay[2]
    assert "below -1.6" in options_of(Settings)["start"].help


@pytest.mark.parametrize(
    ("steps", "settle", "wanted"), [(150, 0.4, 0.1), (50, 0.4, 4.605 / 30), (2, 0.0, 1.0)]
)
def test_masks_cross_half_their_range_before_the_plan_is_fixed(
    steps: int, settle: float, wanted: float
) -> None:
    asked = Settings(steps=steps, settle=settle)
    assert asked.mask_step == pytest.approx(wanted)
    assert asked.mask_step * asked.settle_step >= 4.6 or wanted == 1.0  # the fastest


def test_the_spread_is_added_to_the_start_for_two_deviations_at_most() -> None:
    from core.nuteprune.start import starting_point
    from tests.handmade import graph_of, tiny

    group = graph_of(tiny()).group("L00.ffn_channel")
    logs = np.zeros(group.units)
    logs[0], logs[1] = 1.0, -1.0  # one far above, one far below
    start = starting_point([group], Settings(start=1.0, start_spread=0.5), {group.id: np.exp(logs)})
    assert isinstance(start, dict)
    assert float(start[group.id].max()) == 2.0 and float(start[group.id].min()) == 0.0
