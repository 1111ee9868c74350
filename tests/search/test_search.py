"""The search: better plans are taken, worse ones are not, and what was measured is never measured again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from core.plan.allocation import allocate
from core.plan.records import PruningPlan
from core.search.search import FRONT, Searcher
from tests.plan.made import model_graph, random_scores

GRAPH = model_graph(layers=4)
GROUPS = GRAPH.of_kind("query_head", "ffn_channel")
SCORES = random_scores(GRAPH)
#: What each group costs as its units go, with an interaction that no curve of a single group shows.
WEIGHT = {group.id: 0.2 + number for number, group in enumerate(GROUPS)}


class Made:
    """Losses by a formula."""

    def __init__(self) -> None:
        self.base: dict[str, tuple[int, ...]] = {}

    @contextmanager
    def around(self, removed: Any) -> Iterator[float]:
        self.base = dict(removed)
        yield loss(self.base)

    def without(self, group: str, units: tuple[int, ...]) -> float:
        return loss({**self.base, group: units})


def loss(removed: Any) -> float:
    shares = {group.id: len(removed.get(group.id, ())) / group.units for group in GROUPS}
    alone = sum(WEIGHT[name] * share**2 for name, share in shares.items())
    first = [group.id for group in GROUPS if group.layer == 0]
    return alone + 4 * float(np.prod([shares[name] for name in first]))


def searcher(rounds: int, kept: dict[str, float], calls: list[str], tell: Any = lambda *_: None) -> Searcher:
    def plan(curves: Any, share: float) -> PruningPlan:
        return allocate(GRAPH, SCORES, sparsity=0.4 * share, scope="searched", curves=curves)

    def measured(name: str, measure: Any) -> float:
        if name not in kept:
            calls.append(name)
            kept[name] = measure()
        return kept[name]

    starts = [allocate(GRAPH, SCORES, sparsity=0.4)]
    return Searcher(
        Made(), GROUPS, SCORES, starts, plan, lambda p: float(np.exp(loss(p.removed))), measured, rounds,
        tell, lambda _: None,
    )  # type: ignore[arg-type]  # fmt: skip


def test_rounds_find_what_curves_of_single_groups_cannot_show() -> None:
    curves, rounds = searcher(0, {}, []), searcher(4, {}, [])
    first, best = curves.run(), rounds.run()
    assert loss(best.removed) < loss(first.removed) < loss(allocate(GRAPH, SCORES, sparsity=0.4).removed)
    assert abs(best.sparsity - 0.4) * best.params_in_scope <= 72
    assert [trial.round for trial in rounds.trials[: len(FRONT) + 1]] == [0] * (len(FRONT) + 1)
    best_ppl = min(trial.ppl for trial in rounds.whole)
    assert best_ppl == float(np.exp(loss(best.removed)))
    assert all(
        t.better == (t.ppl < min(o.ppl for o in rounds.whole[:n])) for n, t in enumerate(rounds.whole) if n
    )


def test_what_is_left_to_measure_never_grows() -> None:
    told: list[tuple[int, int]] = []
    searcher(3, {}, [], lambda *numbers: told.append(numbers)).run()
    left = [total - done for done, total in told]
    assert left == sorted(left, reverse=True) and left[-1] == 0
    assert [done for done, _ in told] == list(range(1, len(told) + 1))


def test_a_search_that_was_stopped_goes_on_and_ends_alike() -> None:
    kept: dict[str, float] = {}
    calls: list[str] = []
    whole = searcher(2, kept, calls).run()
    half = dict(list(kept.items())[: len(kept) // 2])
    left: list[str] = []
    resumed = searcher(2, half, left).run()
    assert resumed == whole and set(left) == set(calls[len(kept) // 2 :])


def test_rounds_end_where_the_next_would_measure_the_same() -> None:
    few, many = searcher(20, {}, []), searcher(100_000, {}, [])
    assert few.run().removed == many.run().removed and few.trials == many.trials
