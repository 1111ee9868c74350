from __future__ import annotations

import math

import pytest

from pruneviz.figures.task_scores import difference_noise, flipped, task_rows
from tests.pruneviz.scored import task

HALF = "10" * 50


def test_the_noise_of_paired_answers_is_that_of_the_difference():
    """By hand: of 100 pairs 10 turned wrong and 4 came right, so d is -0.06."""
    before = task("piqa", "1" * 60 + "0" * 40)
    after = task("piqa", "0" * 10 + "1" * 50 + "1" * 4 + "0" * 36)
    turned = [-1] * 10 + [1] * 4 + [0] * 86
    mean = sum(turned) / 100
    expected = math.sqrt(sum((x - mean) ** 2 for x in turned) / 100) / 10
    assert difference_noise(before, after) == pytest.approx(expected)
    (row,) = task_rows([{"piqa": before}, {"piqa": after}])
    assert row.cells[1].change == pytest.approx(-0.06) and row.cells[1].inside_noise


def test_without_the_questions_both_errors_count():
    before, after = task("piqa", HALF, keep=False), task("piqa", "1" * 80 + "0" * 20, keep=False)
    assert difference_noise(before, after) == pytest.approx(
        math.hypot(before.stderrs["acc"], after.stderrs["acc"])
    )
    (row,) = task_rows([{"piqa": before}, {"piqa": after}])
    assert not row.cells[1].inside_noise


def test_an_unknown_error_is_never_a_finding():
    before, after = (task("piqa", r, keep=False, stderrs={"acc": None}) for r in (HALF, "1" * 100))
    assert task_rows([{"piqa": before}, {"piqa": after}])[0].cells[1].inside_noise


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"version": "2.0"}, "task version"),
        ({"num_fewshot": 5}, "few-shot"),
        ({"limit": 7}, "limit"),
        ({"template": "chat abc"}, "template"),
        ({"metric": "acc_norm", "metrics": {"acc_norm": 0.5}}, "metrics"),
    ],
)
def test_what_was_measured_otherwise_is_refused_with_the_reason(changes, word):
    (row, *_) = task_rows([{"piqa": task("piqa", HALF)}, {"piqa": task("piqa", HALF, **changes)}])
    cell = row.cells[1]
    assert cell.change is None and word in cell.refused and cell.value is not None


def test_the_mean_takes_only_standard_tasks_that_all_have():
    own = task("bundled_capitals", HALF, source="bundled")
    part = task("mmlu_law", HALF, part_of="mmlu")
    dense = {
        t.task: t for t in (task("piqa", "1110"), task("boolq", "1100"), own, part, task("arc_easy", HALF))
    }
    pruned = {t.task: t for t in (task("piqa", "1100"), task("boolq", "1000"), own, part)}
    mean = task_rows([dense, pruned])[-1]
    assert mean.task == "Mean of 2 tasks" and mean.about == "piqa, boolq"
    assert mean.cells[0].value == pytest.approx((0.75 + 0.5) / 2)
    assert mean.cells[1].change == pytest.approx(-0.25)


def test_flips_go_both_ways_and_only_between_what_may_be_compared():
    before, after = task("piqa", "1100"), task("piqa", "1001")
    lost, won = flipped(before, after)
    assert [flip.question for flip in lost] == ["Question 1?"]
    assert [(flip.question, flip.before, flip.after) for flip in won] == [("Question 3?", "no", "yes")]
    assert flipped(before, task("piqa", "1001", version="2.0")) == ([], [])
