"""Models side by side in numbers: each against the first, and refused where that would be no comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from core.results import words
from core.results.efficiency import Efficiency
from core.results.noise import Difference, error_of, perplexity_difference, time_difference
from core.results.perplexity import PPL_ON, Perplexity
from core.results.quantities import OF_TEXTS, QUANTITIES, int8_words
from core.results.tasks import TITLES
from pruneviz.data.contenders import DENSE, Contender, Lineup, plain_key
from pruneviz.data.measured import (
    OnText,
    columns,
    made_on,
    measured_by,
    numbers,
    on_more_texts,
    perplexity_of,
    scores,
    times_of,
)
from pruneviz.data.runs import RunRecord
from pruneviz.figures.render import render
from pruneviz.figures.task_scores import Scores, TaskCell, TaskRow, task_rows


@dataclass(frozen=True)
class Entry:
    """What is known of one model.

    Attributes:
        run: the run whose timings these are; timings of two runs are not compared.
        reference: the first model's numbers as that run measured them, where it did; its timings count then.
        numbers: quantity -> value, and what the perplexity was measured on (`PPL_ON`).
        perplexity: window by window, None if it was not measured.
        times, reference_times: behind the times in `numbers` and `reference`, None where they were not kept.
        others: its perplexities on the texts after the first.
        made_on: what chose the units that went, in words; empty where nothing went or it is not known.
        same_tokens: whether it reads text as the same tokens as the first; a perplexity is refused otherwise.
    """

    title: str
    detail: str
    run: str
    numbers: Mapping[str, Any]
    scores: Scores
    reference: Mapping[str, Any] = field(default_factory=dict)
    perplexity: Perplexity | None = None
    times: Efficiency | None = None
    reference_times: Efficiency | None = None
    others: tuple[OnText, ...] = ()
    made_on: str = ""
    same_tokens: bool = True

    def error(self, name: str) -> float | None:
        """What stands after ±: a standard error, or of a time half of slowest minus fastest."""
        if QUANTITIES[name].timed:
            return self.times.error(name) if self.times else None
        return error_of(self.numbers, name)


@dataclass(frozen=True)
class Cell:
    """One number as written, and how it stands to the first model's.

    Attributes:
        verdict: better, worse, noise, unknown, refused, or empty where there is nothing to say.
    """

    text: str
    change: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Row:
    """One quantity or task over all models."""

    name: str
    title: str
    about: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class CompareInfo:
    """The table: columns are (title, detail); notes say what was measured, what of no model, and refusals."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    tasks: tuple[TaskRow, ...]


def entries_of(lineup: Lineup, records: Sequence[RunRecord]) -> list[Entry]:
    """One entry a model, in order."""
    return [_entry(contender, lineup, records) for contender in columns(lineup.contenders)]


def _entry(contender: Contender, lineup: Lineup, records: Sequence[RunRecord]) -> Entry:
    run, first = measured_by(contender, records), lineup.contenders[0]
    base = lineup.base.get(contender.key) or lineup.base.get(contender.key.partition(":")[0])
    same = plain_key(first.key) == DENSE and base == lineup.base[first.key]
    reference = replace(contender, key=DENSE, side=DENSE, int8=first.int8)
    return Entry(
        contender.title, contender.detail, run, numbers(contender, records), scores(contender, records),
        numbers(reference, records) if same else {}, perplexity_of(contender, records),
        times_of(contender, records), times_of(reference, records) if same else None,
        on_more_texts(contender, records), made_on(contender),
        contender.key.partition(":")[0] not in lineup.strange,
    )  # fmt: skip


def compare_info(entries: Sequence[Entry]) -> CompareInfo:
    """Every entry against the first."""
    notes: dict[str, None] = {}
    first = [_quantity(name, entries, notes) for name in _of_texts(entries)]
    counted = [_quantity(name, entries, notes) for name in QUANTITIES if name not in OF_TEXTS]
    more = _more_texts(entries, notes)
    if more:
        text = words.short_text(_text_of(entries[0].numbers))
        first = [replace(row, title=f"{row.title}, {text}") for row in first]
    rows = [*first, *more, *_made(entries), *counted]
    tasks = task_rows([entry.scores for entry in entries])
    rows += [_task(row, notes) for row in tasks]
    if any(row.own for row in tasks):
        notes["Tasks marked “own” are the workbench's, not standard ones; they are never in the mean."] = None
    kinds = dict.fromkeys(entry.numbers["kind"] for entry in entries if "kind" in entry.numbers)
    notes |= dict.fromkeys(map(int8_words, kinds))
    empty = [row for row in rows if all(cell.text == words.DASH for cell in row.cells)]
    if empty and len(empty) < len(rows):
        notes["Not measured of any: " + ", ".join(row.title for row in empty) + "."] = None
        rows = [row for row in rows if row not in empty]
    columns = tuple((entry.title, entry.detail) for entry in entries)
    return CompareInfo(columns, tuple(rows), tuple(notes), tuple(tasks))


def _of_texts(entries: Sequence[Entry]) -> list[str]:
    """What was measured of a text: the perplexity, and how far from the dense model one of them is."""
    far = any(entry.numbers.get("kl") is not None for entry in entries)
    return list(OF_TEXTS if far else OF_TEXTS[:1])


def _text_of(numbers: Mapping[str, Any]) -> str:
    return str(numbers.get("ppl_text") or "text")


def _more_texts(entries: Sequence[Entry], notes: dict[str, None]) -> list[Row]:
    """Perplexity on every text after the first that a model was measured on, a row each."""
    rows = []
    for name in dict.fromkeys(_text_of(other.numbers) for entry in entries for other in entry.others):
        of_text = [_on_text(entry, name) for entry in entries]
        for quantity in _of_texts(of_text):
            row = _quantity(quantity, of_text, notes)
            title = f"{row.title}, {words.short_text(name)}"
            rows.append(replace(row, name=f"{quantity} {name}", title=title))
    return rows


def _on_text(entry: Entry, name: str) -> Entry:
    """The entry with its perplexity on another text in the place of the first; without, if it has none."""
    other = next((other for other in entry.others if _text_of(other.numbers) == name), None)
    return replace(
        entry, numbers=other.numbers if other else {}, perplexity=other.perplexity if other else None
    )


def _made(entries: Sequence[Entry]) -> list[Row]:
    """On what the units that went were chosen: it stands beside every perplexity."""
    if not any(entry.made_on for entry in entries):
        return []
    return [
        Row("made_on", "Calibrated on", "", tuple(Cell(entry.made_on or words.DASH) for entry in entries))
    ]


def _quantity(name: str, entries: Sequence[Entry], notes: dict[str, None]) -> Row:
    values = [entry.numbers.get(name) for entry in entries]
    cells = [Cell(_text(name, entry)) for entry in entries[:1]]
    for entry, value in list(zip(entries, values, strict=True))[1:]:
        reason, first, text = _refusal(name, entries[0], entry), values[0], _text(name, entry)
        if QUANTITIES[name].timed and entries[0].run != entry.run and not reason:
            first = entry.reference[name]
            notes[f"{entry.title}: its times are set against the first model's in the same run."] = None
        if value is None or first is None:
            cells.append(Cell(text))
        elif reason:
            notes[reason] = None
            cells.append(Cell(text, "not comparable", "refused"))
        else:
            against = _difference(name, entries[0], entry, value - first)
            better = (value < first) == QUANTITIES[name].lower
            change = words.difference(first, value)
            if QUANTITIES[name].timed and entries[0].run != entry.run:
                change = f"against {QUANTITIES[name].write(first)}: {change}"
            cells.append(Cell(text, change, _said(against, better)))
    return Row(name, QUANTITIES[name].title, _about(name, entries), tuple(cells))


def _difference(name: str, first: Entry, entry: Entry, change: float) -> Difference:
    """How a quantity changed, and whether that may be chance; of what is counted it never is."""
    if name == "ppl":
        if not first.perplexity or not entry.perplexity:
            return Difference(change)
        return perplexity_difference(first.perplexity, entry.perplexity)
    if name == "kl":
        errors = [each.error(name) for each in (first, entry)]
        return Difference(change, None if None in errors else math.hypot(*filter(None, errors)))
    if not QUANTITIES[name].timed:
        return Difference(change, 0.0)
    before = first.times if first.run == entry.run else entry.reference_times
    if not before or not entry.times:
        return Difference(change)
    return time_difference(before.timed(name), entry.times.timed(name))


def _text(name: str, entry: Entry) -> str:
    value, error = entry.numbers.get(name), entry.error(name)
    write = QUANTITIES[name].write
    return write(value) if error is None else write(value, error)


def _about(name: str, entries: Sequence[Entry]) -> str:
    """What ± is, where it stands."""
    if QUANTITIES[name].timed and (times := [entry.times for entry in entries if entry.times]):
        counts = sorted({measured.timed(name).repeats for measured in times})
        return f"median of {' / '.join(map(str, counts))}, ± half of slowest minus fastest"
    if name != "ppl":
        return ""
    texts = dict.fromkeys(words.measured_on(dict(entry.numbers)) for entry in entries)
    counts = sorted({len(entry.perplexity.losses) for entry in entries if entry.perplexity} - {0})
    errors = f"n = {' / '.join(f'{count:,}' for count in counts)} windows" if counts else ""
    return "; ".join(part for part in (*texts, errors) if part)


def _refusal(name: str, first: Entry, entry: Entry) -> str:
    """Why this quantity of two models must not be set side by side; empty if it may."""
    if QUANTITIES[name].timed and first.run != entry.run and entry.reference.get(name) is None:
        return f"{entry.title}: its times were taken in another run, so they are not compared."
    if name not in OF_TEXTS:
        return ""
    if not entry.same_tokens:
        return f"{entry.title}: perplexity not comparable, for its tokenizer is another."
    texts = [[each.numbers.get(key) for key in PPL_ON] for each in (first, entry)]
    return "" if texts[0] == texts[1] else (
        f"{entry.title}: perplexity not comparable, measured on {words.measured_on(dict(entry.numbers))}; "
        f"{first.title} on {words.measured_on(dict(first.numbers))}."
    )  # fmt: skip


def _task(row: TaskRow, notes: dict[str, None]) -> Row:
    for cell in row.cells:
        if cell.against_first.refused:
            notes[cell.against_first.refused] = None
    title = TITLES.get(row.task, row.task) + " (own)" * row.own
    return Row(row.task, title, row.about, tuple(_task_cell(cell) for cell in row.cells))


def _task_cell(cell: TaskCell) -> Cell:
    if cell.value is None:
        return Cell(words.DASH)
    error = f" ± {100 * cell.stderr:.1f}" if cell.stderr is not None else ""
    text, against = f"{100 * cell.value:.1f}{error} %", cell.against_first
    if against.refused:
        return Cell(text, "not comparable", "refused")
    if against.change is None:
        return Cell(text)
    sign = "+" if against.change > 0 else "−"
    change = f"{sign}{100 * abs(against.change):.1f}" if against.change else "0"
    return Cell(text, change, _said(against, against.change > 0))


def _said(against: Difference, better: bool) -> str:
    """The verdict of a cell: a difference is good or bad only where it is more than chance."""
    if against.verdict == "clear":
        return "better" if better else "worse"
    return "" if against.verdict == "same" else against.verdict


#: Verdict -> (colour, word).
VERDICTS = {
    "better": ("good", "better"),
    "worse": ("warn", "worse"),
    "noise": ("idle", "within noise"),
    "unknown": ("idle", "noise unknown"),
    "refused": ("idle", ""),
}


def compare_html(info: CompareInfo, *, taken: bool = False) -> Markup:
    """The table and its notes; `taken` with a button that downloads it."""
    return render("compare.html", info=info, verdicts=VERDICTS, taken=taken)
