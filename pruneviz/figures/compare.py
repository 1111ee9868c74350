"""Models side by side in numbers: each against the first, and refused where that would be no comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from core.plan.records import KV_BITS
from core.results import words
from core.results.efficiency import SPREADS, Efficiency
from core.results.noise import Difference, error_of, perplexity_difference, time_difference
from core.results.perplexity import Perplexity
from pruneviz.figures.run_detail import measured_on
from pruneviz.figures.task_scores import Scores, TaskCell, TaskRow, task_rows


def _gib(value: float | None) -> str:
    return words.DASH if value is None else f"{value:.2f} GiB"


#: Metric -> (title, how it is written, whether less is better).
QUANTITIES: dict[str, tuple[str, words.Writer, bool]] = {
    "ppl": ("Perplexity", words.perplexity, True),
    "params": ("Parameters", words.count, True),
    "macs": ("Multiply-adds per token", words.count, True),
    "kv_bytes_per_token": (f"Key-value cache per token, at {KV_BITS} bits", words.size, True),
    "memory_gib": ("Memory", _gib, True),
    "latency_ms": ("Time to read a prompt", words.time_ms, True),
    "tokens_per_second": ("Speed of writing", words.speed, False),
}
#: What is timed in turns within one run, and means nothing against another run's.
TIMED = tuple(SPREADS)
PPL_ON = ("ppl_text", "ppl_window", "ppl_tokens")


@dataclass(frozen=True)
class Entry:
    """What is known of one model.

    Attributes:
        run: the run whose timings these are; timings of two runs are not compared.
        reference: the first model's numbers as that run measured them, where it did; its timings count then.
        numbers: quantity -> value, and what the perplexity was measured on (`PPL_ON`).
        perplexity: window by window, None if it was not measured.
        times, reference_times: behind the times in `numbers` and `reference`, None where they were not kept.
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

    def error(self, name: str) -> float | None:
        """What stands after ±: a perplexity's standard error, half of slowest minus fastest of a time."""
        if name in TIMED:
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
    """The table: columns are (title, detail); notes say what was measured and what was refused, and why."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    tasks: tuple[TaskRow, ...]


def compare_info(entries: Sequence[Entry], same_tokens: bool = True) -> CompareInfo:
    """Every entry against the first.

    Args:
        same_tokens: whether all models read text as the same tokens; perplexities are refused otherwise.
    """
    notes: dict[str, None] = {}
    rows = [_quantity(name, entries, same_tokens, notes) for name in QUANTITIES]
    tasks = task_rows([entry.scores for entry in entries])
    rows += [_task(row, notes) for row in tasks]
    if entries and entries[0].numbers.get("ppl") is not None:
        on = measured_on(dict(entries[0].numbers))
        notes = {f"Perplexity on the {on}.": None, **notes} if on else notes
    if any(row.own for row in tasks):
        notes["Tasks marked “own” are the workbench's, not standard ones; they are never in the mean."] = None
    columns = tuple((entry.title, entry.detail) for entry in entries)
    return CompareInfo(columns, tuple(rows), tuple(notes), tuple(tasks))


def _quantity(name: str, entries: Sequence[Entry], same_tokens: bool, notes: dict[str, None]) -> Row:
    values = [entry.numbers.get(name) for entry in entries]
    cells = [Cell(_text(name, entry)) for entry in entries[:1]]
    for entry, value in list(zip(entries, values, strict=True))[1:]:
        reason, first, text = _refusal(name, entries[0], entry, same_tokens), values[0], _text(name, entry)
        if name in TIMED and entries[0].run != entry.run and not reason:
            first = entry.reference[name]
            notes[f"{entry.title}: its times are set against the first model's in the same run."] = None
        if value is None or first is None:
            cells.append(Cell(text))
        elif reason:
            notes[reason] = None
            cells.append(Cell(text, "not comparable", "refused"))
        else:
            found = _difference(name, entries[0], entry, value - first)
            better = (value < first) == QUANTITIES[name][2]
            change = words.difference(first, value)
            if name in TIMED and entries[0].run != entry.run:
                change = f"against {QUANTITIES[name][1](first)}: {change}"
            cells.append(Cell(text, change, _said(found, better)))
    return Row(name, QUANTITIES[name][0], _about(name, entries), tuple(cells))


def _difference(name: str, first: Entry, entry: Entry, change: float) -> Difference:
    """How a quantity changed, and whether that may be chance; of what is counted it never is."""
    if name == "ppl":
        if not first.perplexity or not entry.perplexity:
            return Difference(change)
        return perplexity_difference(first.perplexity, entry.perplexity)
    if name not in TIMED:
        return Difference(change, 0.0)
    before = first.times if first.run == entry.run else entry.reference_times
    if not before or not entry.times:
        return Difference(change)
    return time_difference(before.timed(name), entry.times.timed(name))


def _text(name: str, entry: Entry) -> str:
    value, error = entry.numbers.get(name), entry.error(name)
    write = QUANTITIES[name][1]
    return write(value) if error is None else write(value, error)


def _about(name: str, entries: Sequence[Entry]) -> str:
    """What ± is, where it stands."""
    if name in TIMED and (timed := [one.times for one in entries if one.times]):
        counts = sorted({one.timed(name).repeats for one in timed})
        return f"median of {' / '.join(map(str, counts))}, ± half of slowest minus fastest"
    if name != "ppl":
        return ""
    counts = sorted({len(one.perplexity.losses) for one in entries if one.perplexity} - {0})
    return f"n = {' / '.join(f'{count:,}' for count in counts)} windows" if counts else ""


def _refusal(name: str, first: Entry, entry: Entry, same_tokens: bool) -> str:
    """Why this quantity of two models must not be set side by side; empty if it may."""
    if name in TIMED and first.run != entry.run and entry.reference.get(name) is None:
        return f"{entry.title}: its times were taken in another run, so they are not compared."
    if name != "ppl":
        return ""
    if not same_tokens:
        return "Perplexity: not comparable, for the tokenizers differ."
    there, here = ([one.numbers.get(key) for key in PPL_ON] for one in (first, entry))
    return "" if there == here else (
        f"{entry.title}: perplexity not comparable, measured on the {measured_on(dict(entry.numbers))}; "
        f"{first.title} on the {measured_on(dict(first.numbers))}."
    )  # fmt: skip


def _task(row: TaskRow, notes: dict[str, None]) -> Row:
    for cell in row.cells:
        if cell.against_first.refused:
            notes[cell.against_first.refused] = None
    title = f"{row.task} (own)" if row.own else row.task
    return Row(row.task, title, row.about, tuple(_task_cell(cell) for cell in row.cells))


def _task_cell(cell: TaskCell) -> Cell:
    if cell.value is None:
        return Cell(words.DASH)
    error = f" ± {100 * cell.stderr:.1f}" if cell.stderr is not None else ""
    text, found = f"{100 * cell.value:.1f}{error} %", cell.against_first
    if found.refused:
        return Cell(text, "not comparable", "refused")
    if found.change is None:
        return Cell(text)
    sign = "+" if found.change > 0 else "−"
    change = f"{sign}{100 * abs(found.change):.1f}" if found.change else "0"
    return Cell(text, change, _said(found, found.change > 0))


def _said(found: Difference, better: bool) -> str:
    """The verdict of a cell: a difference is good or bad only where it is more than chance."""
    if found.verdict == "clear":
        return "better" if better else "worse"
    return "" if found.verdict == "same" else found.verdict


#: Verdict -> (colour, word).
VERDICTS = {
    "better": ("good", "better"),
    "worse": ("warn", "worse"),
    "noise": ("idle", "within noise"),
    "unknown": ("idle", "noise unknown"),
    "refused": ("idle", ""),
}


def compare_html(info: CompareInfo) -> str:
    """The table and its notes."""
    head = "".join(
        f'<th class="num">{escape(title)}<small>{escape(detail)}</small></th>'
        for title, detail in info.columns
    )
    rows = "".join(_row_html(row) for row in info.rows)
    notes = "".join(f"<li>{escape(note)}</li>" for note in info.notes)
    return (
        '<div class="pv-card"><div class="pv-scroll"><table class="pv-table pv-compare"><thead><tr><th></th>'
        f'{head}</tr></thead><tbody>{rows}</tbody></table></div><ul class="pv-notes">{notes}</ul></div>'
    )


def _row_html(row: Row) -> str:
    about = f"<small>{escape(row.about)}</small>" if row.about else ""
    cells = "".join(f'<td class="num">{escape(cell.text)}{_change_html(cell)}</td>' for cell in row.cells)
    return f'<tr data-name="{escape(row.name)}"><td>{escape(row.title)}{about}</td>{cells}</tr>'


def _change_html(cell: Cell) -> str:
    if not cell.change:
        return ""
    kind, word = VERDICTS.get(cell.verdict, ("idle", ""))
    return f'<small class="pv-change {kind}">{escape(cell.change)} {word}</small>'
