"""Tell whether two measurements differ by more than chance, by one rule everywhere.

Nothing here needs torch or lm-eval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from core.results.efficiency import SPREADS, Timed
from core.results.perplexity import Perplexity, mean_error
from core.results.tasks import Sample, TaskResult, not_comparable

#: Differences up to this many standard errors are called noise: 95 % of a normal distribution.
NOISE = 1.96
#: Values -> their range in standard deviations, in the mean; the d2 of control charts.
_D2 = {2: 1.128, 3: 1.693, 4: 2.059, 5: 2.326, 6: 2.534, 7: 2.704, 8: 2.847, 9: 2.970, 10: 3.078}


@dataclass(frozen=True)
class Difference:
    """How one measurement differs from another.

    Attributes:
        change: the difference; None where there is nothing to compare with, or comparing is refused.
        noise: the standard error of `change`, None if unknown.
        refused: why the two must not be compared; empty if they may.
        samples: how many values gave `noise`, where they may be few; None if they are many.
    """

    change: float | None = None
    noise: float | None = None
    refused: str = ""
    samples: int | None = None

    @property
    def verdict(self) -> str:
        """`clear` is more than chance, `noise` may be chance, `unknown` if the noise is unknown.

        `same` means no difference at all, and `none` that there is nothing to compare.
        """
        if self.change is None:
            return "none"
        if self.change == 0:
            return "same"
        if self.noise is None:
            return "unknown"
        return "noise" if abs(self.change) <= _errors(self.samples) * self.noise else "clear"


def _errors(samples: int | None) -> float:
    """The standard errors that chance stays within, 95 times in 100: `NOISE` for many samples, more for few.

    For n samples it is Student's t with n - 1 degrees of freedom: 3.18 for four samples.
    """
    if samples is None:
        return NOISE
    from scipy.special import stdtrit  # takes a quarter of a second, for which the page's start need not wait

    return float(stdtrit(max(samples - 1, 1), 0.975))


def perplexity_difference(before: Perplexity, after: Perplexity) -> Difference:
    """How the mean loss of a text changed, in nats: the logarithm of the perplexities' ratio.

    If both models read the same windows, each window gives one difference, and their mean has the standard
    error s / sqrt(n); windows that are hard for one model are hard for the other, so this is far less than
    the errors of both. Without the windows, the two errors count as independent.
    """
    change = after.nll - before.nll
    if before.losses and before.ids == after.ids and len(before.losses) == len(after.losses):
        changes = [now - then for then, now in zip(before.losses, after.losses, strict=True)]
        return Difference(change, mean_error(changes), samples=len(changes))
    errors = [mean_error(measured.losses) for measured in (before, after)]
    measurable = [error for error in errors if error is not None]
    if len(measurable) < 2:
        return Difference(change)
    return Difference(change, math.hypot(*measurable), samples=min(len(before.losses), len(after.losses)))


#: Number in `metrics.json` -> the number that tells its error, and the share of that which stands after ±:
#: the whole standard error of a perplexity, half of slowest minus fastest of a time.
_ERRORS = {
    "ppl": ("ppl_stderr", 1.0),
    "kl": ("kl_stderr", 1.0),
    **{name: (spread, 0.5) for name, spread in SPREADS.items()},
}


def error_of(metrics: Mapping[str, Any], name: str) -> float | None:
    """What stands after ± beside a number of `metrics.json`; None where the number has no error.

    Args:
        name: the number's name, with its ending, e.g. `ppl_before`, `latency_ms_int8_after`.
    """
    for key, (error, share) in _ERRORS.items():
        if name == key or name.startswith(f"{key}_"):
            spread = metrics.get(error + name.removeprefix(key))
            return None if spread is None else share * spread
    return None


def kept_difference(
    before: float | None, after: float | None, stderr: float | None, windows: int
) -> Difference:
    """Do as `perplexity_difference` for two recorded perplexities whose windows were not recorded.

    Args:
        stderr: the standard error of the change in nats, from `perplexity_difference`; None in older records,
            which lack it.
        windows: how many windows it was computed from.
    """
    if not before or not after or not (math.isfinite(before) and math.isfinite(after)):
        return Difference()
    return Difference(math.log(after / before), stderr, samples=windows)


def time_difference(before: Timed, after: Timed) -> Difference:
    """How the time that something takes changed, in milliseconds.

    Models take turns, so that a busy moment hits both: each round gives one difference, and their mean has
    the standard error s / sqrt(n). Without the rounds, the two spreads stand for them, as
    independent: of n values of a normal distribution, slowest minus fastest is d2(n) standard deviations in
    the mean, and a median has at most sqrt(pi / 2) times the error of a mean.
    """
    if before.rounds_ms and len(before.rounds_ms) == len(after.rounds_ms):
        changes = [now - then for then, now in zip(before.rounds_ms, after.rounds_ms, strict=True)]
        return Difference(fmean(changes), mean_error(changes), samples=len(changes))
    change, errors = after.median_ms - before.median_ms, [_median_error(timed) for timed in (before, after)]
    measurable = [error for error in errors if error is not None]
    if len(measurable) < 2:
        return Difference(change)
    return Difference(change, math.hypot(*measurable), samples=before.repeats + after.repeats - 1)


def _median_error(timed: Timed) -> float | None:
    """The standard error of a median, from the spread; None unless the rounds are 2 to 10."""
    deviations = _D2.get(timed.repeats)
    return timed.spread_ms / deviations * math.sqrt(math.pi / 2 / timed.repeats) if deviations else None


def difference(before: TaskResult, after: TaskResult) -> Difference:
    """How the quoted metric of a task changed; refused where the two were measured in different ways."""
    reason = not_comparable(before, after)
    if not reason and before.metric != after.metric:
        reason = f"{after.task}: not comparable, for the metrics {before.metric} and {after.metric} differ."
    if reason:
        return Difference(refused=reason)
    return Difference(after.value - before.value, difference_noise(before, after))


def difference_noise(before: TaskResult, after: TaskResult) -> float | None:
    """The standard error of the difference of two accuracies, in the metric's unit.

    Both answered the same questions: with b turned from right to wrong and c the other way, of n, the
    difference is (c - b) / n with variance (b + c - (c - b)^2 / n) / n^2 (McNemar's pairs). Without the
    questions, the two errors count as independent, which is never too small for models that agree.
    """
    pairs = _paired(before, after)
    if pairs:
        n, signs = len(pairs), [int(bool(now)) - int(bool(then)) for then, now in pairs]
        moved, net = sum(map(abs, signs)), sum(signs)
        return math.sqrt(max(0.0, moved - net * net / n)) / n
    if before.stderr is None or after.stderr is None:
        return None
    return math.hypot(before.stderr, after.stderr)


def _paired(before: TaskResult, after: TaskResult) -> list[tuple[bool | None, bool | None]]:
    """(right before, right after) of every question, if both results have all questions."""
    now: dict[str, Sample] = {sample.id: sample for sample in after.samples}
    pairs = [(sample.right, now[sample.id].right) for sample in before.samples if sample.id in now]
    complete = len(pairs) == len(before.samples) == len(after.samples)
    return pairs if complete and all(None not in pair for pair in pairs) else []
