from __future__ import annotations

import math
from dataclasses import replace

import pytest

from core.evaluate.perplexity_results import Perplexity, keep_perplexity
from core.report.sections import Run, numbers
from pruneviz import runs
from pruneviz.contenders import line_up
from pruneviz.entries import entries_of
from pruneviz.figures.compare import QUANTITIES, Entry, compare_html, compare_info
from pruneviz.figures.run_detail import run_facts
from pruneviz.figures.score_chart import chart, costs_chart_info, scores_chart_info
from tests.pruneviz.samples import METRICS, make_run
from tests.pruneviz.scored import task

ON = {"ppl_text": "bundled", "ppl_window": 256, "ppl_tokens": 8192}


LOSSES = (0.2, -0.1, 0.1, -0.2)


def measured(ppl, ids="a", losses=LOSSES):
    nll = math.log(ppl)
    return Perplexity(ppl, nll, 8192, 256, ids, tuple(nll + loss for loss in losses))


def entry(title="Dense", run="a", side="before", scores=(), **changes):
    names = [name for name in QUANTITIES if f"{name}_{side}" in METRICS]
    perplexity = measured(changes.get("ppl", METRICS[f"ppl_{side}"]))
    numbers = {name: METRICS[f"{name}_{side}"] for name in names} | ON | {"ppl_stderr": perplexity.stderr}
    return Entry(title, "", run, numbers | changes, {one.task: one for one in scores}, {}, perplexity)


def cells(info, name):
    return next(row.cells for row in info.rows if row.name == name)


def test_each_quantity_has_all_values_and_a_signed_change():
    info = compare_info([entry(), entry("Pruned", side="after")])
    assert [row.name for row in info.rows] == list(QUANTITIES)
    dense, pruned = cells(info, "ppl")
    assert (dense.text, pruned.text, pruned.change, pruned.verdict) == (
        "26.2 ± 2.4", "59.2 ± 5.4", "+126 %", "worse"
    )  # fmt: skip
    assert cells(info, "latency_ms")[1].change == "−14.8 %"


def test_a_difference_of_perplexities_inside_the_noise_is_no_finding():
    """27 against 26.2: more than chance of the same windows, if all moved alike; not of other windows."""
    near = entry("Pruned", side="after", ppl=27.0)
    other = replace(near, perplexity=measured(27.0, ids="b"))
    uneven = replace(near, perplexity=measured(27.0, losses=LOSSES[::-1]))
    without = replace(near, perplexity=replace(near.perplexity, losses=()))
    info = compare_info([entry(), near, other, uneven, without])
    assert [cell.verdict for cell in cells(info, "ppl")] == ["", "worse", "noise", "noise", "unknown"]
    assert {cell.change for cell in cells(info, "ppl")[1:]} == {"+3.1 %"}
    page = compare_html(info)
    assert "within noise" in page and "noise unknown" in page and "n = 4 windows" in page


@pytest.mark.parametrize(
    ("losses", "verdict", "report", "detail"),
    [
        (LOSSES, "worse", "", ""),
        (LOSSES[::-1], "noise", ", within the noise", ", within noise"),
        ((), "unknown", ", noise unknown", ""),
    ],
)
def test_report_detail_and_this_page_say_the_same_of_a_perplexity(tmp_path, losses, verdict, report, detail):
    before, after = measured(26.2), measured(27.0, losses=losses)
    errors = {"ppl_after": 27.0, "ppl_stderr_before": before.stderr, "ppl_stderr_after": after.stderr}
    run_dir = make_run(tmp_path, "a", metrics={**METRICS, **errors, "ppl_windows": 4})
    for side, one in (("dense", before), ("pruned", after)):
        keep_perplexity(run_dir, side, one)
    records = runs.list_runs(tmp_path)
    info = compare_info(entries_of(line_up(records, ["dense", "a"], "demo"), records))
    said, plain = ("27.0 ± 2.5", "27.00 ± 2.46") if losses else ("27.0", "27.00")
    assert (cells(info, "ppl")[1].text, cells(info, "ppl")[1].verdict) == (said, verdict)
    page = numbers(Run(run_dir))
    assert f">{plain}<" in page and f">+3.1%{report}<" in page and "over 4 windows" in page
    facts = dict(run_facts(records[0], 0.0))
    assert facts["Perplexity"] == f"26.2 ± 2.4 → {said} (+3.1 %{detail})"


def test_better_knows_that_less_memory_and_more_speed_are_good():
    info = compare_info([entry(), entry("Pruned", side="after")])
    verdicts = {row.name: row.cells[1].verdict for row in info.rows}
    assert verdicts["params"] == "better" and verdicts["tokens_per_second"] == "better"
    assert verdicts["kv_bytes_per_token"] == "", "nothing changed"
    assert verdicts["memory_gib"] == "", "not measured"


def test_perplexity_on_another_text_or_window_is_refused_with_both():
    info = compare_info([entry(), entry("Pruned", side="after", ppl_window=1024)])
    assert cells(info, "ppl")[1].verdict == "refused" and "+126" not in cells(info, "ppl")[1].change
    reason = next(note for note in info.notes if "not comparable" in note)
    assert "windows of 1024" in reason and "windows of 256" in reason


def test_perplexity_of_other_tokens_is_refused():
    info = compare_info([entry(), entry("Other", side="after")], same_tokens=False)
    assert cells(info, "ppl")[1].verdict == "refused" and any("tokenizers" in note for note in info.notes)


def test_times_of_two_runs_are_not_compared():
    info = compare_info([entry(), entry("Pruned", run="b", side="after")])
    assert cells(info, "latency_ms")[1].verdict == "refused" and cells(info, "params")[1].verdict == "better"


def test_times_of_another_run_are_set_against_the_first_model_in_that_run():
    other = entry("Pruned", run="b", side="after", latency_ms=300.0)
    other = replace(other, reference={"latency_ms": 600.0})
    info = compare_info([entry(), other])
    assert cells(info, "latency_ms")[1].change == "against 600 ms: −50.0 %"
    assert any("in the same run" in note for note in info.notes)
    costs = costs_chart_info(info, [entry(), other])
    assert costs.values[1][costs.names.index("Time to read a prompt")] == 50.0


def test_scores_come_with_error_n_and_noise():
    before, after = task("piqa", "1" * 30 + "0" * 10), task("piqa", "1" * 29 + "0" * 11)
    info = compare_info([entry(scores=[before]), entry("Pruned", side="after", scores=[after])])
    row = info.rows[-1]
    assert row.about == "acc, zero-shot, n = 40" and row.cells[0].text == "75.0 ± 6.9 %"
    assert (row.cells[1].change, row.cells[1].verdict) == ("−2.5", "noise")
    assert "within noise" in compare_html(info)


def test_own_tasks_are_labelled():
    own = task("bundled_capitals", "1100", source="bundled")
    info = compare_info([entry(scores=[own])])
    assert info.rows[-1].title.endswith("(own)") and any("not standard" in note for note in info.notes)


def test_the_table_escapes_and_says_what_the_perplexity_was_measured_on():
    text = compare_html(compare_info([entry("<img src=x onerror=alert(1)>")]))
    assert "<img" not in text and "windows of 256 tokens" in text


def test_a_model_without_numbers_is_all_dashes():
    info = compare_info([Entry("Dense", "", "", {}, {}), entry("Pruned", side="after")])
    assert {row.cells[0].text for row in info.rows} == {"–"}


def test_charts_leave_out_what_must_not_be_compared():
    entries = [
        entry(scores=[task("piqa", "1100")]),
        entry("B", "b", "after", [task("piqa", "11", version="2")]),
    ]
    info = compare_info(entries)
    scores, costs = scores_chart_info(info), costs_chart_info(info, entries)
    assert scores.values == ((50.0,), (None,))
    assert "Time to read a prompt" not in costs.names and costs.values[0] == (100.0,) * len(costs.names)
    assert costs.values[1][costs.names.index("Parameters")] == 84.2
    assert [bars.name for bars in chart(scores, "score", "d").data] == ["Dense"], "the other has no bar"
    assert not scores.empty
