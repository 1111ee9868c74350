from __future__ import annotations

import pytest

from core.report.run import Run
from core.report.sections import section
from core.results.noise import difference
from pruneviz.data import runs
from pruneviz.data.contenders import line_up
from pruneviz.figures.compare import compare_info, entries_of
from pruneviz.figures.task_scores import MOST_WORDS, flipped, task_rows, word_difference
from tests.pruneviz.samples import MEASURED, make_run
from tests.pruneviz.scored import task, write_benchmarks

HALF = "10" * 50


def test_a_difference_is_taken_against_the_first_model():
    before, after = task("piqa", "1" * 60 + "0" * 40), task("piqa", "0" * 10 + "1" * 54 + "0" * 36)
    (row,) = task_rows([{"piqa": before}, {"piqa": after}])
    assert row.cells[0].against_first.verdict == "none"
    assert row.cells[1].against_first == difference(before, after)


def test_the_report_and_this_page_say_the_same_of_every_difference(tmp_path):
    """Six of 100 questions lost and none gained: more than chance, though not by independent errors."""
    before = [task(name, "1" * 60 + "0" * 40) for name in ("lost", "turned", "same")]
    after = [
        task("lost", "0" * 6 + "1" * 54 + "0" * 40), task("turned", "0" * 9 + "1" * 51 + "1" * 5 + "0" * 35),
        task("same", "1" * 60 + "0" * 40),
    ]  # fmt: skip
    kept = {"keep": False, "stderrs": {"acc": 0.049}}
    before += [task("alone", "1" * 60 + "0" * 40, **kept), task("unknown", HALF, keep=False, stderrs={})]
    after += [task("alone", "1" * 54 + "0" * 46, **kept), task("unknown", "1" * 100, keep=False, stderrs={})]
    run_dir = make_run(tmp_path, "a", metrics=MEASURED)
    write_benchmarks(run_dir, dense=before, pruned=after)

    records = runs.list_runs(tmp_path)
    rows = compare_info(entries_of(line_up(records, ["dense", "a"], "demo"), records)).rows
    page = {row.name: row.cells[1].verdict for row in rows if row.name in {one.task for one in before}}
    assert page == {
        "lost": "worse", "turned": "noise", "same": "", "alone": "noise", "unknown": "unknown",
    }  # fmt: skip
    said = {"worse": "", "": "", "noise": ", within the noise", "unknown": ", noise unknown"}
    report = section(Run(run_dir))
    changes = {
        "lost": "-0.0600",
        "turned": "-0.0400",
        "same": "+0.0000",
        "alone": "-0.0600",
        "unknown": "+0.5000",
    }
    for name, verdict in page.items():
        assert f">{changes[name]}{said[verdict]}<" in report, name


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
    assert cell.against_first.change is None and word in cell.against_first.refused
    assert cell.value is not None


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
    assert mean.cells[1].against_first.change == pytest.approx(-0.25)


def test_flips_go_both_ways_and_only_between_what_may_be_compared():
    before, after = task("piqa", "1100"), task("piqa", "1001")
    lost, won = flipped(before, after)
    assert [flip.question for flip in lost] == ["Question 1?"]
    assert [(flip.question, flip.before, flip.after) for flip in won] == [("Question 3?", "no", "yes")]
    assert flipped(before, task("piqa", "1001", version="2.0")) == ([], [])


def test_replaced_and_added_words_are_marked_and_nothing_is_lost():
    stretches = word_difference("Paris is the capital of France.", "Lyon is the big capital  of\nFrance.")
    assert [text for text, differs in stretches if differs] == ["Lyon ", "big "]
    assert "".join(text for text, _ in stretches) == "Lyon is the big capital  of\nFrance."


def test_the_same_words_with_other_spaces_are_the_same():
    assert not any(differs for _, differs in word_difference("a b\nc", " a  b c "))


def test_an_empty_answer_has_no_stretches_and_an_empty_reference_marks_all():
    assert word_difference("a", "") == []
    assert word_difference("", "a b") == [("a b", True)]


def test_an_endless_answer_is_left_unmarked():
    text = "x " * (MOST_WORDS + 1)
    assert word_difference("y", text) == [(text, False)]
