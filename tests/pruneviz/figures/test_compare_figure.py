from __future__ import annotations

from pruneviz.figures.compare import QUANTITIES, compare_html, compare_info
from tests.pruneviz.samples import METRICS


def test_each_quantity_has_both_values_and_a_signed_change():
    pairs = {pair.name: pair for pair in compare_info(METRICS).pairs}
    assert pairs.keys() == QUANTITIES.keys()
    assert (pairs["ppl"].dense, pairs["ppl"].pruned, pairs["ppl"].change) == ("26.2", "59.2", "+126 %")
    assert pairs["latency_ms"].change == "−14.8 %"


def test_better_knows_that_less_memory_and_more_speed_are_good():
    pairs = {pair.name: pair.better for pair in compare_info(METRICS).pairs}
    assert pairs["ppl"] is False and pairs["params"] is True and pairs["tokens_per_second"] is True
    assert pairs["kv_bytes_per_token"] is None, "nothing changed"
    assert pairs["memory_gib"] is None, "not measured"


def test_the_table_says_what_the_perplexity_was_measured_on():
    text = compare_html(compare_info(METRICS))
    assert "windows of 256 tokens" in text and "15.8 % of all" in text


def test_a_run_without_metrics_is_all_dashes():
    assert {pair.dense for pair in compare_info({}).pairs} == {"–"}
