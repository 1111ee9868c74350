"""A paper's table, and below it the models of the comparison by the numbers that this paper prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from core.results.quantities import QUANTITIES
from core.results.quoted import COMMONSENSE, LARGER, PRINTED, as_printed
from core.results.tasks import TaskResult
from pruneviz.data.command_pieces import Command
from pruneviz.data.commands import commands
from pruneviz.data.published import PublishedTable
from pruneviz.figures.compare import Entry
from pruneviz.figures.render import render

LABEL = "Published, not measured here"
#: Columns that hold the mean of the seven tasks.
AVERAGES = ("average", "average_new_harness")
#: Columns that say what a row is, the most telling first.
NAMES = ("method", "model", "strategy", "tuned_modules")


@dataclass(frozen=True)
class PublishedInfo:
    """What is shown of one table.

    Attributes:
        commands: one for each of its rows.
        ours: a row for every model of the comparison that has something for this table, one cell per column.
        notes: what ours are measured by.
    """

    table: PublishedTable
    commands: tuple[Command, ...] = ()
    ours: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()


def published_info(table: PublishedTable, entries: Sequence[Entry] = ()) -> PublishedInfo:
    """The table, and these models' scores in percent and parameters in its columns.

    Other columns stay empty: perplexities and times depend on what they were measured on, and stand above.
    """
    rows = [(_cells(table, entry), entry) for entry in entries]
    shown = [(cells, entry) for cells, entry in rows if any(cells.values())]
    ours = tuple(_row(table, cells, entry.title) for cells, entry in shown)
    return PublishedInfo(table, commands(table), ours, _notes(table, [entry for _, entry in shown]))


def published_html(info: PublishedInfo | None) -> Markup:
    """The table with its source above it; every cell of the paper's as the paper prints it."""
    return render("published.html", info=info, label=LABEL) if info else Markup()


def _cells(table: PublishedTable, entry: Entry) -> dict[str, str]:
    """Column -> cell of one model; empty where it has nothing for it."""
    scores = {task: _printed(table.paper, entry.scores.get(task)) for task in COMMONSENSE}
    known = [score for score in scores.values() if score is not None]
    cells = {task: f"{100 * score:.2f}" for task, score in scores.items() if score is not None}
    if len(known) == len(COMMONSENSE):
        cells |= dict.fromkeys(AVERAGES, f"{100 * sum(known) / len(known):.2f}")
    if (params := entry.numbers.get("params")) is not None:
        cells["params"] = QUANTITIES["params"].write(params)
    return {name: cells.get(name, "") for name in table.columns}


def _printed(paper: str, result: TaskResult | None) -> float | None:
    return as_printed(paper, result.task, result.metrics) if result else None


def _row(table: PublishedTable, cells: Mapping[str, str], title: str) -> tuple[str, ...]:
    name = next((name for name in NAMES if name in table.columns), table.columns[0])
    return tuple({**cells, name: title}[column] for column in table.columns)


def _notes(table: PublishedTable, entries: Sequence[Entry]) -> tuple[str, ...]:
    if not entries:
        return ()
    tasks = [task for task in COMMONSENSE if task in table.columns]
    asked = sorted({result.n for entry in entries for task in tasks if (result := entry.scores.get(task))})
    if not asked:
        return ("Below the line: measured here.",)
    by: dict[str, list[str]] = {}
    for task in tasks:
        by.setdefault(PRINTED[table.paper][task], []).append(task.replace("_", " "))
    words = {LARGER: "the larger of acc and acc_norm"}
    metrics = "; ".join(f"{words.get(metric, metric)} of {', '.join(of)}" for metric, of in by.items())
    questions = f"{asked[0]:,}" if len(asked) == 1 else f"{asked[0]:,} to {asked[-1]:,}"
    return (
        f"Below the line: measured here, on {questions} questions a task, as this paper prints: {metrics}.",
    )
