"""The one rule for what may be chance."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from statistics import median

import pytest

from core.results.efficiency import Timed
from core.results.noise import (
    Difference,
    difference,
    difference_noise,
    error_of,
    kept_difference,
    perplexity_difference,
    time_difference,
)
from core.results.perplexity import Perplexity
from tests.pruneviz.scored import task

HALF = "10" * 50


def test_the_noise_of_paired_answers_is_that_of_the_difference() -> None:
    """By hand: of 100 pairs 10 turned wrong and 4 came right, so d is -0.06."""
    before = task("piqa", "1" * 60 + "0" * 40)
    after = task("piqa", "0" * 10 + "1" * 50 + "1" * 4 + "0" * 36)
    turned = [-1] * 10 + [1] * 4 + [0] * 86
    mean = sum(turned) / 100
    expected = math.sqrt(sum((x - mean) ** 2 for x in turned) / 100) / 10
    assert difference_noise(before, after) == pytest.approx(expected)
    compared = difference(before, after)
    assert compared.change == pytest.approx(-0.06) and compared.verdict == "noise"


def test_without_the_questions_both_errors_count() -> None:
    before, after = task("piqa", HALF, keep=False), task("piqa", "1" * 80 + "0" * 20, keep=False)
    errors = [each.stderr for each in (before, after) if each.stderr is not None]
    assert difference_noise(before, after) == pytest.approx(math.hypot(*errors)) and len(errors) == 2
    assert difference(before, after).verdict == "clear"
    assert difference_noise(task("piqa", HALF), after) == pytest.approx(math.hypot(*errors)), "one kept them"


def test_an_unknown_error_is_never_a_finding() -> None:
    before, after = (task("piqa", r, keep=False, stderrs={"acc": None}) for r in (HALF, "1" * 100))
    assert difference(before, after).verdict == "unknown"


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (Difference(), "none"),
        (Difference(refused="measured otherwise"), "none"),
        (Difference(0.0, None), "same"),
        (Difference(1.96, 1.0), "noise"),
        (Difference(-1.97, 1.0), "clear"),
        (Difference(0.1, 0.0), "clear"),
    ],
)
def test_two_standard_errors_tell_a_difference_from_chance(difference: Difference, verdict: str) -> None:
    assert difference.verdict == verdict


def measured(*losses: float, ids: str = "a") -> Perplexity:
    nll = sum(losses) / len(losses)
    return Perplexity(math.exp(nll), nll, 8 * len(losses), 8, ids, losses)


def test_the_same_windows_are_compared_window_by_window() -> None:
    """By hand: windows differ by 0.1, 0.15, 0.2, so 0.15 on the mean, with error 0.05 / sqrt(3)."""
    before, after = measured(3.0, 1.0, 2.0), measured(3.1, 1.15, 2.2)
    compared = perplexity_difference(before, after)
    assert compared.change == pytest.approx(0.15) and compared.noise == pytest.approx(0.05 / math.sqrt(3))
    assert compared.verdict == "clear"
    assert perplexity_difference(before, measured(2.9, 1.3, 2.1)).verdict == "noise"


def test_other_windows_are_independent_and_without_any_nobody_knows() -> None:
    before, after = measured(3.0, 1.0, 2.0), measured(3.1, 1.2, 2.3, ids="b")
    compared = perplexity_difference(before, after)
    errors = [each.stderr / each.ppl for each in (before, after) if each.stderr is not None]
    assert compared.noise == pytest.approx(math.hypot(*errors)) and compared.verdict == "noise"
    plain = Perplexity(20.0, math.log(20.0), 24, 8)
    assert plain.stderr is None and perplexity_difference(before, plain).verdict == "unknown"


@pytest.mark.parametrize(("samples", "exact"), [(4, 3.182), (8, 2.365), (16, 2.131), (100, 1.984)])
def test_few_windows_take_more_to_be_a_finding(samples: int, exact: float) -> None:
    """Student's t at 97.5 %, from a table."""
    below, above = (Difference(exact * by, 1.0, samples=samples) for by in (0.99, 1.01))
    assert (below.verdict, above.verdict) == ("noise", "clear")
    before = measured(*(3.0 + step for step in range(samples)))
    after = measured(*(3.1 + step + 0.1 * (step % 2) for step in range(samples)))
    assert perplexity_difference(before, after).samples == samples


def test_what_was_kept_of_two_perplexities_gives_the_same_verdict() -> None:
    before = measured(3.0, 1.0, 2.0)
    for after in (measured(3.1, 1.15, 2.2), measured(2.9, 1.3, 2.1)):
        compared = perplexity_difference(before, after)
        from_metrics = kept_difference(before.ppl, after.ppl, compared.noise, 3)
        assert from_metrics.change == pytest.approx(compared.change)
        assert (from_metrics.noise, from_metrics.samples, from_metrics.verdict) == (
            compared.noise,
            compared.samples,
            compared.verdict,
        )
    assert kept_difference(20.0, 21.0, None, 3).verdict == "unknown"
    assert {kept_difference(20.0, bad, 0.1, 3).verdict for bad in (None, math.inf, math.nan)} == {"none"}


def test_a_window_past_all_numbers_leaves_the_noise_unknown() -> None:
    broken = Perplexity(1e304, math.inf, 24, 8, "a", (math.inf, 2.0, 3.0))
    assert broken.stderr is None
    assert perplexity_difference(measured(3.0, 1.0, 2.0), broken).verdict == "unknown"


def timed(*rounds: float, keep: bool = True) -> Timed:
    return Timed(median(rounds), max(rounds) - min(rounds), len(rounds), rounds if keep else ())


def test_models_that_took_turns_are_compared_round_by_round() -> None:
    """By hand: rounds differ by 10, 12, 14 ms, so 12 on the mean, with error 2 / sqrt(3)."""
    compared = time_difference(timed(100, 300, 200), timed(110, 312, 214))
    assert (compared.change, compared.samples) == (12.0, 3)
    assert compared.noise == pytest.approx(2 / math.sqrt(3)) and compared.verdict == "clear"
    assert time_difference(timed(100, 300, 200), timed(110, 305, 180)).verdict == "noise"
    assert time_difference(timed(5, 6, 7), timed(5, 6, 7)).verdict == "same"


def test_without_the_rounds_both_spreads_count() -> None:
    """By hand: of 3 values slowest minus fastest is 1.693 deviations; a median errs sqrt(pi / 6) of one."""
    slow, fast = timed(100, 110, 104, keep=False), timed(90, 93, 91, keep=False)
    compared = time_difference(slow, fast)
    errors = [spread / 1.693 * math.sqrt(math.pi / 6) for spread in (10, 3)]
    assert compared.noise == pytest.approx(math.hypot(*errors)) and compared.change == -13
    assert compared.samples == 5, "3 + 3 rounds leave the 4 degrees of freedom of 5 values"
    assert compared.verdict == "clear", "13 ms are more than 2.8 errors of 4.5 ms, 12 ms are not"
    assert time_difference(slow, timed(91, 94, 92, keep=False)).verdict == "noise"
    assert time_difference(slow, timed(91, keep=False)).verdict == "unknown", "a single round has no spread"


@pytest.mark.parametrize("keep", [True, False])
def test_two_equal_models_are_rarely_called_different(keep: bool) -> None:
    """Of 1,000 pairs of equal models on a machine with busy moments at most 7 % are; real ones are found."""
    draw, called = random.Random(0), {0.0: 0, 10.0: 0}
    for gain in called:
        for _ in range(1000):
            busy = [abs(draw.gauss(0, 1)) for _ in range(5)]
            sides = [[100 + more + draw.gauss(0, 1) + own for own in busy] for more in (0.0, gain)]
            called[gain] += time_difference(*(timed(*side, keep=keep) for side in sides)).verdict == "clear"
    assert called[0.0] < 70 and called[10.0] > 990


def test_errors_of_metrics_are_found_by_the_name_of_the_number() -> None:
    metrics = {
        "ppl_before": 30.0, "ppl_stderr_before": 0.6, "ppl_text": "bundled", "latency_ms": 400.0,
        "latency_spread_ms": 10.0, "latency_spread_ms_int8_after": 4.0,
        "tokens_per_second_spread_before": 3.0,
    }  # fmt: skip
    names = ("ppl_before", "latency_ms", "latency_ms_int8_after", "tokens_per_second_before")
    assert [error_of(metrics, name) for name in names] == [0.6, 5.0, 2.0, 1.5]
    others = ("ppl_after", "ppl_text", "latency_ms_before", "params", "ppl_stderr_before")
    assert {error_of(metrics, name) for name in others} == {None}


def test_metrics_must_be_the_same() -> None:
    other = task("piqa", HALF, metric="acc_norm", metrics={"acc_norm": 0.5})
    assert "metrics acc and acc_norm" in difference(task("piqa", HALF), other).refused


def test_it_needs_neither_torch_nor_gradio() -> None:
    code = "import sys, core.results.noise; print({'torch', 'gradio', 'lm_eval'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
