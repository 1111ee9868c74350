"""Scores, their averages, and what may be compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.evaluate.tasks import requests, suite_averages
from core.results.quoted import COMMONSENSE, PRINTED, as_printed
from core.results.tasks import Sample, TaskResult, flips, not_comparable


def test_names_are_resolved_as_the_papers_mean_them():
    to_run = requests(["commonsense", "piqa", "mmlu", "bbh"])
    assert [request.name for request in to_run] == [*COMMONSENSE, "mmlu", "bbh"]
    assert [(request.lm_eval, request.num_fewshot) for request in to_run[-2:]] == [
        ("mmlu", 5),
        ("bbh_fewshot", 3),
    ]
    assert [request.num_fewshot for request in requests(["mmlu", "piqa"], 2)] == [2, 2]


def scored(task: str, acc: float, norm: float, **changes) -> TaskResult:
    metric = COMMONSENSE.get(task, "acc")
    stderrs = {"acc": 0.03, "acc_norm": 0.04}
    settings = {"version": "1.0", "num_fewshot": 0, "limit": None, "template": "none", "source": "folder"}
    return TaskResult(
        task, task, {"acc": acc, "acc_norm": norm}, stderrs, metric, 10, **{**settings, **changes}
    )


def test_the_suite_average_is_the_papers():
    published = {"boolq": 73.18, "piqa": 78.35, "hellaswag": 72.99, "winogrande": 67.01, "arc_easy": 67.45,
                 "arc_challenge": 41.38, "openbookqa": 42.4}  # fmt: skip
    quoted = {
        task: scored(task, *((value, -1) if COMMONSENSE[task] == "acc" else (-1, value)))
        for task, value in published.items()
    }
    average = suite_averages(quoted)["commonsense"]
    assert average.value == pytest.approx(63.25, abs=0.005)  # LLM-Pruner, Table 1, LLaMA-7B
    assert average.stderr == pytest.approx((4 * 0.03**2 + 3 * 0.04**2) ** 0.5 / 7)
    del quoted["boolq"]
    assert suite_averages(quoted) == {}


def test_only_what_was_measured_alike_is_compared():
    a = scored("piqa", 0.5, 0.6, data={"questions": "q"})
    assert not_comparable(a, replace(a, source="hub", seconds=3.0)) == ""
    changes: tuple[dict[str, Any], ...] = (
        {"version": "2.0"},
        {"limit": 5},
        {"num_fewshot": 1},
        {"template": "chat"},
        {"data": {}},
    )
    for change in changes:
        assert "not comparable" in not_comparable(a, replace(a, **change))


def test_flips_are_found_by_question_not_by_place():
    def answered(**right: bool | None) -> tuple[Sample, ...]:
        return tuple(Sample(id, f"question {id}", "yes", "no", flag) for id, flag in right.items())

    before = scored("piqa", 0.5, 0.5, samples=answered(a=True, b=True, c=False, d=None))
    after = scored("piqa", 0.5, 0.5, samples=answered(c=True, b=False, a=True, d=True, e=True))
    assert [(x.id, x.right, y.right) for x, y in flips(before, after)] == [
        ("b", True, False),
        ("c", False, True),
    ]


def test_each_paper_prints_its_own_number_of_a_task():
    """LLaMA-7B by lm-eval of June 2023, as the log in NutePrune's repository has it, and its Table 14."""
    log = {
        "piqa": {"acc": 0.7867, "acc_norm": 0.7916}, "arc_easy": {"acc": 0.7529, "acc_norm": 0.7290},
        "openbookqa": {"acc": 0.342, "acc_norm": 0.444}, "boolq": {"acc": 0.7517},
    }  # fmt: skip
    table_14 = {"piqa": 79.16, "arc_easy": 75.29, "openbookqa": 44.4}
    for task, printed in table_14.items():
        assert 100 * as_printed("nuteprune", task, log[task]) == pytest.approx(printed, abs=0.005)
    assert as_printed("llm_pruner", "piqa", log["piqa"]) == 0.7867, "not normalised"
    assert as_printed("llm_pruner", "openbookqa", log["openbookqa"]) == 0.444
    assert as_printed("nuteprune", "boolq", log["boolq"]) == 0.7517
    assert (
        as_printed("llm_pruner", "mmlu", {"acc": 0.3}) is None and as_printed("nuteprune", "piqa", {}) is None
    )
    assert all(set(printed) == set(COMMONSENSE) for printed in PRINTED.values()) and len(PRINTED) == 4
