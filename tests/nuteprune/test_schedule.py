"""Who teaches when: Section 3.2, and runs too short for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.nuteprune.schedule import DENSE, Schedule

PAPER = Schedule(target=0.5, gap=0.1, interval=0.01, warmup=500, steps=1000)


@pytest.mark.parametrize(
    ("sparsity", "level"), [(0.05, DENSE), (0.1, DENSE), (0.105, DENSE), (0.115, 1), (0.3, 20), (0.3099, 20)]
)
def test_stage_1_teachers_are_the_gap_behind(sparsity: float, level: int) -> None:
    assert PAPER.before_target(sparsity, range(1, 50)) == level


def test_a_teacher_serves_one_interval_of_students() -> None:
    """Eq. 8: T teaches students between s(T) + g and s(T) + g + i."""
    level = 7
    for student in (0.1701, 0.175, 0.1799):
        assert PAPER.before_target(student, range(1, 50)) == level
    assert PAPER.before_target(0.1801, range(1, 50)) == level + 1


def test_a_missing_snapshot_is_stood_in_for_by_the_one_before() -> None:
    assert PAPER.before_target(0.3, [3, 9, 25]) == 9
    assert PAPER.before_target(0.3, []) == DENSE


def test_stage_2_walks_from_the_weakest_to_the_dense_model() -> None:
    levels = list(range(1, 11))
    taught = [PAPER.after_target(step, 600, levels) for step in range(600, 1000)]
    walked = [level for level in taught if level != DENSE]
    assert walked == sorted(walked, reverse=True) and set(walked) == set(levels)
    assert taught[200:] == [DENSE] * 200  # the last half of the stage


@pytest.mark.parametrize("target", [0.2, 0.25, 0.5])
def test_stage_2_is_that_of_the_released_code(target: float) -> None:
    """One of n + 1 equal parts for every level from a gap below the target down, and the rest dense."""
    ahead, levels = 10, list(range(1, round(target * 100)))
    part = 7
    steps = part * (len(levels) + 1)
    plan = Schedule(target, 0.1, 0.01, warmup=0, steps=steps, last=0.1 / target)
    for step in range(steps):
        left = steps - step - 1
        phase = left // part - ahead  # the snapshot's place, counted from 0
        assert plan.after_target(step, 0, levels) == (levels[phase] if phase >= 0 else DENSE)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_the_shortest_runs_have_a_teacher_at_every_step(steps: int) -> None:
    short = replace(PAPER, warmup=1, steps=steps)
    for step in range(steps):
        assert short.after_target(step, 0, [1, 2, 3]) in (DENSE, 1, 2, 3)
    assert short.after_target(steps - 1, steps - 1, [1]) == DENSE


def test_either_stage_can_be_left_to_the_dense_model() -> None:
    assert replace(PAPER, stage_1=False).before_target(0.4, range(50)) == DENSE
    assert replace(PAPER, stage_2=False).after_target(600, 600, range(1, 50)) == DENSE


def test_stage_2_begins_at_the_target_and_does_not_wait_for_ever() -> None:
    assert not PAPER.reached(499, 0.5)
    assert PAPER.reached(500, 0.497)
    assert not PAPER.reached(700, 0.4)
    assert PAPER.reached(750, 0.4)


def test_levels_are_counted_in_intervals_up_to_the_target() -> None:
    assert [PAPER.level(s) for s in (0.0, 0.0099, 0.01, 0.29, 0.3, 0.7)] == [0, 0, 1, 29, 30, 50]
