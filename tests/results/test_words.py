from __future__ import annotations

import pytest

from core.results import words


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (words.count, 134_515_008, "134.5 M"),
        (words.count, 7.24e9, "7.24 B"),
        (words.count, 1536, "1,536"),
        (words.count, None, "–"),
        (words.size, 23_040, "22.5 KiB"),
        (words.size, 538_090_408, "513 MiB"),
        (words.perplexity, 26.21, "26.2"),
        (words.perplexity, 1.9e6, "1.9 million"),
        (lambda value: words.perplexity(value, 0.58), 30.12, "30.1 ± 0.6"),
        (lambda value: words.perplexity(value, 0.004), 30.12, "30.1 ± 0.004"),
        (lambda value: words.perplexity(value, 135.7), 274.6, "275 ± 136"),
        (lambda value: words.perplexity(value, 210.4), 1234.5, "1,234 ± 210"),
        (lambda value: words.perplexity(value, 3e5), 1.9e6, "1.9 ± 0.3 million"),
        (lambda value: words.perplexity(value, 2e11), 3e12, "3.0e+12 ± 2.0e+11"),
        (lambda value: words.perplexity(value, 1.0), None, "–"),
        (words.perplexity, float("inf"), "infinite"),
        (words.duration, 59, "59 s"),
        (words.duration, 125, "2 min 05 s"),
        (words.duration, 7800, "2 h 10 min"),
    ],
)
def test_a_number_in_words(write, value, text):
    assert write(value) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (100, 84.2, "−15.8 %"),
        (26.2, 59.2, "+126 %"),
        (26.2, 1.9e6, "×72,519"),
        (5, 5, "0 %"),
        (None, 5, "–"),
        (0, 5, "–"),
    ],
)
def test_a_difference_has_its_sign(before, after, text):
    assert words.difference(before, after) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "just now"), (90, "1 min ago"), (3700, "1 h ago"), (180_000, "2 days ago")]
)
def test_an_age(seconds, text):
    assert words.age(1e6 - seconds, 1e6) == text


def test_both_fractions_stand_side_by_side():
    assert words.sparsity(0.2, 0.158) == "20.0 % of block parameters, 15.8 % of all"


def test_signs_are_written_but_not_of_nothing():
    assert [words.signed(x) for x in (0.754, -0.2, -0.001)] == ["+0.75", "−0.20", "0.00"]


def test_what_a_perplexity_is_of_is_said_with_its_protocol() -> None:
    assert words.read_on("a.txt", window=128, tokens=2560, protocol="llm-pruner") == (
        "a.txt, 20 windows of 128 tokens, 2,540 scored, LLM-Pruner's protocol"
    )
    assert words.read_on("a.txt", window=2048, tokens=2048, protocol="nuteprune") == (
        "a.txt, 1 window of 2,048 tokens, 2,047 scored, NutePrune's protocol"
    )
    old = {"ppl_text": "bundled", "ppl_window": 256, "ppl_tokens": None}
    assert words.measured_on(old) == ("bundled evaluation text, windows of 256 tokens, Workbench's protocol")
    assert words.measured_on({}) == ""


def test_what_was_removed_begins_with_what_was_asked_for() -> None:
    shares = {"sparsity": 0.2, "sparsity_total": 0.158}
    budgets = [{"asked": "params=110M", "words": "params=109.9M of 134.5M, at most 110M asked for"}]
    told = words.removed({**shares, "budgets": budgets})
    assert told == f"{budgets[0]['words']}; 20.0 % of block parameters, 15.8 % of all"
    assert words.removed(shares) == "20.0 % of block parameters, 15.8 % of all"
    assert words.removed({}) == words.DASH
