from __future__ import annotations

import math
from dataclasses import replace
from statistics import median

import pytest

from core.report.run import Run
from core.report.sections import section
from core.results.efficiency import keep_efficiency
from core.results.perplexity import Perplexity, keep_perplexities
from core.results.quantities import QUANTITIES
from pruneviz.data import runs
from pruneviz.data.contenders import line_up
from pruneviz.figures.compare import Entry, compare_html, compare_info, entries_of
from pruneviz.figures.run_detail import run_facts
from pruneviz.figures.score_chart import chart, costs_chart_info, scores_chart_info
from tests.pruneviz.samples import MEASURED, efficiency, make_run
from tests.pruneviz.scored import task

ON = {"ppl_text": "bundled", "ppl_window": 256, "ppl_tokens": 8192}


LOSSES = (0.2, -0.1, 0.1, -0.2)


def measured(ppl, ids="a", losses=LOSSES):
    nll = math.log(ppl)
    return Perplexity(ppl, nll, 8192, 256, ids, tuple(nll + loss for loss in losses))


def entry(title="Dense", run="a", side="before", scores=(), times=None, **changes):
    names = [name for name in QUANTITIES if f"{name}_{side}" in MEASURED]
    perplexity = measured(changes.get("ppl", MEASURED[f"ppl_{side}"]))
    numbers = {name: MEASURED[f"{name}_{side}"] for name in names} | ON | {"ppl_stderr": perplexity.stderr}
    found = {one.task: one for one in scores}
    return Entry(title, "", run, numbers | changes, found, {}, perplexity, times)


def cells(info, name):
    return next(row.cells for row in info.rows if row.name == name)


def test_each_quantity_has_all_values_and_a_signed_change():
    info = compare_info([entry(), entry("Pruned", side="after")])
    assert [row.name for row in info.rows] == [q for q in QUANTITIES if q not in ("kl", "memory_gib")]
    assert "Not measured of any: Memory." in info.notes
    dense, pruned = cells(info, "ppl")
    assert (dense.text, pruned.text, pruned.change, pruned.verdict) == (
        "26.2 ± 2.4", "59.2 ± 5.4", "+126 %", "worse"
    )  # fmt: skip
    assert cells(info, "latency_ms")[1].change == "−14.8 %"


def test_the_divergence_from_the_dense_model_stands_beside_the_perplexity():
    """Set against the first model only where that has one, too; the errors of both are its noise."""
    far = entry("Far", side="after", kl=0.53, kl_stderr=0.02)
    near = entry("Near", side="after", kl=0.31, kl_stderr=0.02)
    info = compare_info([entry(), far, near])
    assert [row.name for row in info.rows] == [name for name in QUANTITIES if name != "memory_gib"]
    assert [cell.text for cell in cells(info, "kl")] == ["–", "0.530 ± 0.020 nats", "0.310 ± 0.020 nats"]
    assert {cell.verdict for cell in cells(info, "kl")} == {""}
    assert cells(compare_info([far, near]), "kl")[1].verdict == "better"
    alike = entry("Alike", side="after", kl=0.52, kl_stderr=0.02)
    assert cells(compare_info([far, alike]), "kl")[1].verdict == "noise"


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
    run_dir = make_run(tmp_path, "a", metrics={**MEASURED, **errors, "ppl_windows": 4})
    for side, one in (("dense", before), ("pruned", after)):
        keep_perplexities(run_dir, side, [one])
    records = runs.list_runs(tmp_path)
    info = compare_info(entries_of(line_up(records, ["dense", "a"], "demo"), records))
    said, plain = ("27.0 ± 2.5", "27.00 ± 2.46") if losses else ("27.0", "27.00")
    assert (cells(info, "ppl")[1].text, cells(info, "ppl")[1].verdict) == (said, verdict)
    page = section(Run(run_dir))
    assert f">{plain}<" in page and f">+3.1%{report}<" in page and "over 4 windows" in page
    facts = dict(run_facts(records[0], 0.0))
    assert facts["Perplexity"] == f"26.2 ± 2.4 → {said} (+3.1 %{detail})"


def test_better_knows_that_less_memory_and_more_speed_are_good():
    info = compare_info([entry(), entry("Pruned", side="after")])
    verdicts = {row.name: row.cells[1].verdict for row in info.rows}
    assert verdicts["params"] == "better" and verdicts["tokens_per_second"] == "unknown", "not timed twice"
    before, after = (efficiency([400.0] * 4, times) for times in ([70, 71, 70, 72], [56, 57, 55, 56]))
    info = compare_info([entry(times=before), entry("Pruned", side="after", times=after)])
    verdicts |= {row.name: row.cells[1].verdict for row in info.rows}
    assert verdicts["tokens_per_second"] == "better"
    assert verdicts["kv_bytes_per_token"] == "", "nothing changed"


#: Rounds of a machine that slows down: turn by turn the second is 10 ms faster, the third as fast.
ROUNDS = ([400.0, 410.0, 440.0, 420.0], [391.0, 399.0, 430.0, 410.0], [401.0, 408.0, 441.0, 421.0])


def test_a_difference_of_times_inside_the_noise_is_no_finding():
    """Kept round by round it is judged so; of spreads alone, 10 ms are nothing beside 40 ms."""
    models = [
        entry("ABC"[n], latency_ms=median(ms), times=efficiency(ms, [9.0, 9.4, 9.2, 9.3]))
        for n, ms in enumerate(ROUNDS)
    ]
    spread = replace(models[1], times=efficiency(ROUNDS[1], [9.0], rounds=False))
    older = replace(models[1], times=None)
    info = compare_info([*models, spread, older])
    row = cells(info, "latency_ms")
    assert [cell.verdict for cell in row] == ["", "better", "noise", "noise", "unknown"]
    assert [cell.text for cell in row] == [
        "415 ± 20 ms", "404 ± 20 ms", "414 ± 20 ms", "404 ± 20 ms", "404 ms"
    ]  # fmt: skip
    assert {cell.verdict for cell in cells(info, "tokens_per_second")[1:3]} == {""}, "the very same times"
    page = compare_html(info)
    assert "within noise" in page and "noise unknown" in page
    assert "median of 4, ± half of slowest minus fastest" in page
    costs = costs_chart_info(info, [*models, spread, older])
    at = costs.names.index("Time to read a prompt")
    assert costs.errors[0][at] == pytest.approx(100 * 20 / 415) and costs.errors[4][at] is None
    assert costs.errors[0][costs.names.index("Parameters")] is None
    drawn = chart(costs, "of the first model", "d").data[1].error_x
    assert drawn.array[at] == drawn.arrayminus[at] == pytest.approx(100 * 19.5 / 415)
    assert costs_chart_info(compare_info([older]), [older]).errors == ()


def test_whiskers_do_not_reach_below_nothing():
    """One slow round of 400 ms: the median is 30 ms, half of slowest minus fastest 185 ms."""
    one = entry(latency_ms=30.0, times=efficiency([30.0, 30.0, 400.0], [9.0, 9.1, 9.2]))
    costs = costs_chart_info(compare_info([one]), [one])
    at = costs.names.index("Time to read a prompt")
    drawn = chart(costs, "of the first model", "d").data[0].error_x
    assert drawn.array[at] == pytest.approx(100 * 185 / 30) and drawn.arrayminus[at] == 100.0
    assert drawn.arrayminus[costs.names.index("Parameters")] is None and drawn.width == 0


def test_times_of_another_run_take_the_noise_of_that_run():
    first = entry(times=efficiency(ROUNDS[2], [9.0, 9.1, 9.2, 9.3]))
    other = entry("Pruned", run="b", latency_ms=404.5, times=efficiency(ROUNDS[1], [9.0, 9.1, 9.2, 9.3]))
    reference = efficiency([500.0, 400.0, 300.0, 450.0], [9.0, 9.1, 9.2, 9.3])
    for kept, verdict in ((reference, "noise"), (None, "unknown")):
        against = replace(other, reference={"latency_ms": 425.0}, reference_times=kept)
        info = compare_info([first, against])
        cell = cells(info, "latency_ms")[1]
        assert (cell.change, cell.verdict) == ("against 425 ms: −4.8 %", verdict)


@pytest.mark.parametrize(
    ("ms", "rounds", "verdict", "report"),
    [
        (ROUNDS[1], True, "better", ""),
        (ROUNDS[2], True, "noise", ", within the noise"),
        (ROUNDS[1], False, "noise", ", within the noise"),
        (None, True, "unknown", ", noise unknown"),
    ],
)
def test_report_and_this_page_say_the_same_of_a_time(tmp_path, ms, rounds, verdict, report):
    latency = {"latency_ms_before": 415.0, "latency_ms_after": median(ms or ROUNDS[1])}
    run_dir = make_run(tmp_path, "a", metrics={**MEASURED, **latency})
    if ms:
        sides = {"dense": efficiency(ROUNDS[0], [9.0] * 4), "pruned": efficiency(ms, [9.0] * 4)}
        if not rounds:  # as they were written before the rounds were kept
            sides = {side: replace(one, timings=(without_rounds(one),)) for side, one in sides.items()}
        keep_efficiency(run_dir, sides)
    records = runs.list_runs(tmp_path)
    info = compare_info(entries_of(line_up(records, ["dense", "a"], "demo"), records))
    dense, pruned = cells(info, "latency_ms")
    assert (dense.text, pruned.verdict) == ("415 ± 20 ms" if ms else "415 ms", verdict)
    page = section(Run(run_dir))
    change = f"{latency['latency_ms_after'] / 415 - 1:+.1%}"
    assert f">{'415.0 ± 20.0' if ms else '415.0'}<" in page and f">{change}{report}<" in page
    assert ("half of slowest minus fastest" in page) is bool(ms)


def without_rounds(one):
    (timing,) = one.timings
    return replace(timing, prefill_rounds_ms=(), decode_rounds_ms=())


def test_perplexity_on_another_text_or_window_is_refused_with_both():
    info = compare_info([entry(), entry("Pruned", side="after", ppl_window=1024)])
    assert cells(info, "ppl")[1].verdict == "refused" and "+126" not in cells(info, "ppl")[1].change
    reason = next(note for note in info.notes if "not comparable" in note)
    assert "windows of 1,024" in reason and "windows of 256" in reason
    info = compare_info([entry(), entry("Pruned", side="after", ppl_protocol="llm-pruner")])
    assert cells(info, "ppl")[1].verdict == "refused"
    assert "LLM-Pruner's protocol" in next(note for note in info.notes if "not comparable" in note)


def test_perplexity_of_other_tokens_is_refused():
    strange = replace(entry("Other", side="after"), same_tokens=False)
    info = compare_info([entry(), entry("Cut", side="after"), strange])
    assert [cell.verdict for cell in cells(info, "ppl")[1:]] == ["worse", "refused"], (
        "a baseline spoils no other"
    )
    assert any("its tokenizer is another" in note for note in info.notes)


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
