"""The numbers of every model of a lineup, beside what it was before recovery and what it is in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pruneviz.data.contenders import DENSE, Contender, Lineup, plain_key
from pruneviz.data.measured import columns, measured_by, numbers, perplexity_of, scores, times_of
from pruneviz.data.runs import RunRecord
from pruneviz.figures.compare import Entry


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
    )  # fmt: skip
