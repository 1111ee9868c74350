"""The numbers of every model of a lineup, beside what it was before recovery and what it is in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pruneviz.data.contenders import DENSE, Contender, Lineup, plain_key
from pruneviz.data.measured import columns, numbers, perplexity_of, scores, times_of
from pruneviz.data.runs import RunRecord
from pruneviz.figures.compare import Entry


def entries_of(lineup: Lineup, records: Sequence[RunRecord]) -> list[Entry]:
    """One entry a model, in order."""
    return [_entry(one, lineup, records) for one in columns(lineup.contenders)]


def _entry(one: Contender, lineup: Lineup, records: Sequence[RunRecord]) -> Entry:
    run, first = one.record.id if one.record else "", lineup.contenders[0]
    base = lineup.base.get(one.key) or lineup.base.get(one.key.partition(":")[0])
    same = plain_key(first.key) == DENSE and base == lineup.base[first.key]
    there = replace(one, key=DENSE, side=DENSE, int8=first.int8)
    return Entry(
        one.title,
        one.detail,
        run,
        numbers(one, records),
        scores(one, records),
        numbers(there, records) if same else {},
        perplexity_of(one, records),
        times_of(one, records),
        times_of(there, records) if same else None,
    )
