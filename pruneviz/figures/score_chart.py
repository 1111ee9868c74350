"""Scores with their error bars, and sizes and speeds relative to the first model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from core.results import words
from core.results.quantities import OF_TEXTS, QUANTITIES
from core.results.tasks import TITLES
from pruneviz.figures.compare import CompareInfo, Entry, Row

if TYPE_CHECKING:
    import plotly.graph_objects as go

_WHISKERS = {"type": "data", "thickness": 1.2, "width": 3, "color": "var(--pv-text)"}
#: In the order of the models: the first is the reference.
COLOURS = ("embedding", "accent", "removed", "attention", "residual", "ffn", "bad", "busy")


@dataclass(frozen=True)
class ChartInfo:
    """Bars per model over the same names; None where nothing was measured or it must not be compared.

    Attributes:
        values, errors: model -> one per name, in percent.
    """

    names: tuple[str, ...]
    models: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    errors: tuple[tuple[float | None, ...], ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.names or not self.models


def scores_chart_info(info: CompareInfo) -> ChartInfo:
    """Task scores in percent with one standard error; what must not be compared is left out."""
    rows, count = info.tasks, len(info.columns)
    cells = [[row.cells[index] for row in rows] for index in range(count)]
    values = tuple(
        tuple(
            None if cell.value is None or cell.against_first.refused else 100 * cell.value for cell in column
        )
        for column in cells
    )
    errors = tuple(
        tuple(None if cell.stderr is None else 100 * cell.stderr for cell in column) for column in cells
    )
    return ChartInfo(tuple(TITLES.get(row.task, row.task) for row in rows), _titles(info), values, errors)


def costs_chart_info(info: CompareInfo, entries: Sequence[Entry]) -> ChartInfo:
    """Sizes and speeds in percent of the first model's, times with half of slowest minus fastest.

    Only what all may be compared in.
    """
    rows = [row for row in info.rows if row.name in QUANTITIES and row.name not in OF_TEXTS and _whole(row)]
    first = entries[0].numbers if entries else {}
    rows = [row for row in rows if first.get(row.name)]
    values = tuple(
        tuple(100 * entry.numbers[row.name] / _against(entry, entries[0], row.name) for row in rows)
        for entry in entries
    )
    errors = tuple(
        tuple(_share(entry.error(row.name), _against(entry, entries[0], row.name)) for row in rows)
        for entry in entries
    )
    known = any(error is not None for own in errors for error in own)
    return ChartInfo(tuple(row.title for row in rows), _titles(info), values, errors if known else ())


def _share(error: float | None, of: float) -> float | None:
    return None if error is None else 100 * error / of


def _against(entry: Entry, first: Entry, name: str) -> float:
    """The first model's value; of a time, as the entry's own run measured it."""
    own = entry.reference.get(name) if QUANTITIES[name].timed and entry.run != first.run else None
    return float(own if own is not None else first.numbers[name])


def _whole(row: Row) -> bool:
    return all(cell.verdict != "refused" and cell.text != words.DASH for cell in row.cells)


def _titles(info: CompareInfo) -> tuple[str, ...]:
    return tuple(title for title, _ in info.columns)


def _whiskers(values: Sequence[float | None], errors: Sequence[float | None]) -> dict[str, Any]:
    """Not below zero, where nothing is; without caps where some have no error, for plotly draws theirs."""
    down = [
        None if error is None else min(error, value or 0.0)
        for value, error in zip(values, errors, strict=True)
    ]
    style = {**_WHISKERS, "width": 0} if None in errors else _WHISKERS
    return {**style, "array": list(errors), "arrayminus": down, "symmetric": False}


#: Characters of a name before it goes on in the next line: bars need room on a phone.
_WIDEST = 20


def chart(info: ChartInfo, axis: str, description: str) -> go.Figure:
    """Grouped horizontal bars, the first name on top."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for index, (model, values) in enumerate(zip(info.models, info.values, strict=True)):
        if all(value is None for value in values):
            continue  # it would take room among the bars, and a place in the legend
        errors = info.errors[index] if info.errors else None
        figure.add_bar(
            y=list(info.names), x=list(values), name=model, orientation="h",
            marker={"color": f"var(--pv-{COLOURS[index % len(COLOURS)]})"},
            error_x=_whiskers(values, errors) if errors else None,
            hovertemplate="%{y}: %{x:.1f} %<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_layout(
        height=110 + len(info.names) * (22 + 15 * len(info.models)), barmode="group", bargap=0.28,
        margin={"l": 90, "r": 16, "t": 16, "b": 58},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        xaxis={"title": {"text": axis, "font": {"size": 13}}, "rangemode": "tozero", "ticksuffix": " %"},
        yaxis={
            "autorange": "reversed", "automargin": True, "tickvals": list(info.names),
            "ticktext": ["<br>".join(wrap(name, _WIDEST)) for name in info.names],
        },
        meta={"description": description},
    )  # fmt: skip
    return figure
