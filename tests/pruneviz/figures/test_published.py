"""A paper's table with our models below it, by the paper's own metrics."""

from __future__ import annotations

from core.results.quoted import COMMONSENSE
from pruneviz.data.published import published_table, published_tables
from pruneviz.figures.compare import Entry
from pruneviz.figures.published import published_html, published_info
from tests.pruneviz.scored import task


def entry(scores: dict[str, tuple[float, float]], **numbers: float) -> Entry:
    results = {
        name: task(name, "10", metrics={"acc": acc, "acc_norm": norm}, stderrs={})
        for name, (acc, norm) in scores.items()
    }
    return Entry("Cut by half", "", "a", numbers, results)


ALL = entry({name: (0.5, 0.6) for name in COMMONSENSE}, params=3_350_000_000)


def shown(name: str, *entries: Entry) -> dict[str, str]:
    """Column -> cell of the first row of ours."""
    table = published_table(name)
    assert table
    info = published_info(table, entries)
    return dict(zip(table.columns, info.ours[0], strict=True))


def test_ours_stand_below_by_the_metrics_that_the_paper_prints():
    row = shown("llm_pruner_table_01", ALL)
    assert (row["method"], row["piqa"], row["openbookqa"], row["arc_easy"]) == (
        "Cut by half",
        "50.00",
        "60.00",
        "50.00",
    )
    assert row["average"] == f"{(4 * 50 + 3 * 60) / 7:.2f}" and row["wikitext2_ppl"] == row["tuned"] == ""
    row = shown("nuteprune_table_14", ALL)
    assert (row["piqa"], row["arc_easy"], row["boolq"]) == ("60.00", "60.00", "50.00"), "the larger of both"
    assert row["average_new_harness"] == f"{(2 * 50 + 5 * 60) / 7:.2f}"


def test_a_size_baseline_has_its_parameters_and_no_mean_of_fewer_than_seven():
    row = shown("llm_pruner_table_09", entry({"piqa": (0.7, 0.6)}, params=3_600_000_000))
    assert (row["model"], row["params"], row["piqa"], row["average"]) == (
        "Cut by half",
        "3.6 B",
        "70.00",
        "",
    )


def test_who_has_nothing_for_a_table_is_not_in_it():
    table = published_table("llm_pruner_table_01")
    assert table and published_info(table, [entry({}, ppl=12.0)]).ours == ()
    info = published_info(table, [ALL])
    assert "on 2 questions a task" in info.notes[0] and "acc_norm of hellaswag" in info.notes[0]
    assert "Cut by half" in published_html(info) and published_html(None) == ""


def test_every_table_takes_ours():
    for table in published_tables():
        assert all(len(row) == len(table.columns) for row in published_info(table, [ALL]).ours)
