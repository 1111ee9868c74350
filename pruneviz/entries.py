"""The numbers of every model of a lineup, beside what it was before recovery and what it is in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence

from pruneviz.contenders import Contender, Lineup, columns, numbers, scores
from pruneviz.figures.compare import Entry
from pruneviz.runs import RunRecord


def entries_of(lineup: Lineup, records: Sequence[RunRecord]) -> list[Entry]:
    """One entry a model, in order."""
    return [_entry(one, records) for one in columns(lineup.contenders)]


def _entry(one: Contender, records: Sequence[RunRecord]) -> Entry:
    run = one.record.id if one.record else ""
    return Entry(one.title, one.detail, run, numbers(one, records), scores(one, records))
