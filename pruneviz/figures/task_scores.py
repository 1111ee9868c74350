"""Benchmark scores of models against the first, task by task, and the mean of the standard ones."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from core.results.noise import Difference, difference
from core.results.tasks import TaskResult, flips, not_comparable

Scores = Mapping[str, TaskResult]


@dataclass(frozen=True)
class TaskCell:
    """One model's score on one task, and how it stands to the first model's.

    Attributes:
        value, stderr: None where the model was not scored.
    """

    value: float | None = None
    stderr: float | None = None
    against_first: Difference = field(default_factory=Difference)


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
    if is_first or first is None:
        return TaskCell(result.value, result.stderr)
    return TaskCell(result.value, result.stderr, difference(first, result))


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
        and all(cell.value is not None and not cell.against_first.refused for cell in row.cells)
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
    differences = [cell.against_first for cell in cells]
    change = sum(each.change or 0.0 for each in differences) / count
    return TaskCell(value, stderr, Difference(change, _pooled([each.noise for each in differences])))


def _pooled(errors: Sequence[float | None]) -> float | None:
    """The standard error of a mean of independent values; None if one is unknown."""
    known = [error for error in errors if error is not None]
    return math.hypot(*known) / len(errors) if len(known) == len(errors) else None


#: A stretch of text, and whether it differs from the reference.
Stretch = tuple[str, bool]
#: Answers longer than this many words are shown unmarked: matching takes the product of both lengths.
MOST_WORDS = 3000


def word_difference(reference: str, text: str) -> list[Stretch]:
    """`text` in stretches, in order; their concatenation is `text`, spaces included.

    A word is marked where the longest common run of words leaves it out: it was replaced or added.
    """
    there, here = _words(reference), _words(text)
    if not here or len(there) > MOST_WORDS or len(here) > MOST_WORDS:
        return [(text, False)] if text else []
    matcher = SequenceMatcher(None, [w.strip() for w in there], [w.strip() for w in here], autojunk=False)
    stretches = [
        ("".join(here[start:end]), kind != "equal") for kind, _, _, start, end in matcher.get_opcodes()
    ]
    return [stretch for stretch in stretches if stretch[0]]


def _words(text: str) -> list[str]:
    """Words with the space around them."""
    return re.findall(r"\s*\S+\s*", text)
