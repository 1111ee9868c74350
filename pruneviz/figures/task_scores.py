"""Benchmark scores of models against the first: differences, their noise, and what must not be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.evaluate.task_results import Sample, TaskResult, flips, not_comparable

Scores = Mapping[str, TaskResult]
#: Differences up to this many standard errors are called noise: 95 % of a normal distribution.
NOISE = 1.96


@dataclass(frozen=True)
class TaskCell:
    """One model's score on one task, and how it stands to the first model's.

    Attributes:
        value, stderr: None where the model was not scored.
        change: the difference to the first model, None where there is none or it must not be taken.
        noise: the standard error of `change`, None if unknown.
        refused: why they must not be compared; empty if they may.
    """

    value: float | None = None
    stderr: float | None = None
    change: float | None = None
    noise: float | None = None
    refused: str = ""

    @property
    def inside_noise(self) -> bool:
        """Whether the difference may be chance; also if nobody knows how large the noise is."""
        if self.change is None or self.change == 0:
            return False
        return self.noise is None or abs(self.change) <= NOISE * self.noise


@dataclass(frozen=True)
class TaskRow:
    """One task over all models. `own` marks the workbench's own tasks, which are no standard ones."""

    task: str
    about: str
    own: bool
    cells: tuple[TaskCell, ...]


def task_rows(scored: Sequence[Scores]) -> list[TaskRow]:
    """Every task that any model was scored on, in the order found, and last the mean of the standard ones.

    Args:
        scored: task -> result for each model, in order.
    """
    names = dict.fromkeys(name for scores in scored for name in scores)
    rows = [_row(name, [scores.get(name) for scores in scored]) for name in names]
    return [*rows, *_mean(rows, scored)]


def difference_noise(before: TaskResult, after: TaskResult) -> float | None:
    """The standard error of the difference of two accuracies, in the metric's unit.

    Both answered the same questions: with b turned from right to wrong and c the other way, of n, the
    difference is (c - b) / n with variance (b + c - (c - b)^2 / n) / n^2 (McNemar's pairs). Without the
    questions, the two errors are taken as independent, which is never too small for models that agree.
    """
    pairs = _paired(before, after)
    if pairs:
        n, turned = len(pairs), [int(bool(now)) - int(bool(then)) for then, now in pairs]
        moved, net = sum(map(abs, turned)), sum(turned)
        return math.sqrt(max(0.0, moved - net * net / n)) / n
    if before.stderr is None or after.stderr is None:
        return None
    return math.hypot(before.stderr, after.stderr)


def flipped(before: TaskResult, after: TaskResult) -> tuple[list[Flip], list[Flip]]:
    """Questions that went wrong, and questions that came right. Both empty if they must not be compared."""
    if not_comparable(before, after):
        return [], []
    both = [
        Flip(one.question, one.answer, one.given, two.given, bool(two.right))
        for one, two in flips(before, after)
    ]
    return [flip for flip in both if not flip.right_now], [flip for flip in both if flip.right_now]


@dataclass(frozen=True)
class Flip:
    """A question that one model has right and the other wrong. The texts are data and a model's own."""

    question: str
    answer: str
    before: str
    after: str
    right_now: bool


def _row(name: str, results: list[TaskResult | None]) -> TaskRow:
    first = results[0]
    some = next(result for result in results if result is not None)
    cells = tuple(_cell(first, result, index == 0) for index, result in enumerate(results))
    return TaskRow(name, _about(some, results), some.source == "bundled", cells)


def _cell(first: TaskResult | None, result: TaskResult | None, is_first: bool) -> TaskCell:
    if result is None:
        return TaskCell()
    plain = TaskCell(result.value, result.stderr)
    if is_first or first is None:
        return plain
    reason = not_comparable(first, result)
    if not reason and first.metric != result.metric:
        reason = f"{result.task}: not comparable, for the metrics {first.metric} and {result.metric} differ."
    if reason:
        return TaskCell(result.value, result.stderr, refused=reason)
    change = result.value - first.value
    return TaskCell(result.value, result.stderr, change, difference_noise(first, result))


def _about(some: TaskResult, results: Sequence[TaskResult | None]) -> str:
    counts = sorted({result.n for result in results if result is not None})
    shots = f"{some.num_fewshot}-shot" if some.num_fewshot else "zero-shot"
    chat = ", chat template" if some.template != "none" else ""
    return f"{some.metric}, {shots}{chat}, n = {' / '.join(f'{n:,}' for n in counts)}"


def _mean(rows: Sequence[TaskRow], scored: Sequence[Scores]) -> list[TaskRow]:
    """The mean over standard tasks that all models were scored on and that may be compared."""
    parts = {name for scores in scored for name, result in scores.items() if result.part_of}
    used = [
        row for row in rows
        if not row.own and row.task not in parts
        and all(cell.value is not None and not cell.refused for cell in row.cells)
    ]  # fmt: skip
    if len(used) < 2 or not scored:
        return []
    cells = tuple(_mean_cell([row.cells[index] for row in used], index == 0) for index in range(len(scored)))
    return [TaskRow(f"Mean of {len(used)} tasks", ", ".join(row.task for row in used), False, cells)]


def _mean_cell(cells: Sequence[TaskCell], is_first: bool) -> TaskCell:
    count = len(cells)
    value = sum(cell.value or 0.0 for cell in cells) / count
    stderr = _pooled([cell.stderr for cell in cells])
    if is_first:
        return TaskCell(value, stderr)
    change = sum(cell.change or 0.0 for cell in cells) / count
    return TaskCell(value, stderr, change, _pooled([cell.noise for cell in cells]))


def _pooled(errors: Sequence[float | None]) -> float | None:
    """The standard error of a mean of independent values; None if one is unknown."""
    known = [error for error in errors if error is not None]
    return math.hypot(*known) / len(errors) if len(known) == len(errors) else None


def _paired(before: TaskResult, after: TaskResult) -> list[tuple[bool | None, bool | None]]:
    """(right before, right after) of every question, if both kept all of them."""
    now: dict[str, Sample] = {sample.id: sample for sample in after.samples}
    pairs = [(one.right, now[one.id].right) for one in before.samples if one.id in now]
    whole = len(pairs) == len(before.samples) == len(after.samples)
    return pairs if whole and all(None not in pair for pair in pairs) else []
