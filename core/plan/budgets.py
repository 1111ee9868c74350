"""Budgets as goals: what a model takes of each quantity, how much of it has to go, and whether it can."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import lcm, prod

from core.errors import NotPrunableError
from core.graph.records import Graph
from core.plan.cost import bytes_of, cost, stored_bytes
from core.plan.latency import Timings
from core.plan.meter import Counts, Meter
from core.plan.ranking import Track
from core.plan.records import PruningPlan, missing_biases
from core.plan.solving import Goal, Part, solve, useful
from core.spec.budget import PACKINGS, Budget, answer, budgets_of, typed

Removed = dict[str, tuple[int, ...]]
_ROUNDING = 1e-12


def taken(
    graph: Graph,
    budget: Budget,
    removed: Removed,
    biases: Sequence[str] = (),
    timings: Timings | None = None,
) -> float:
    """How much of a budget's quantity the model takes once these units are gone and these biases added.

    Args:
        timings: of the model on this machine, for a latency.
    """
    if budget.quantity == "latency":
        assert timings, "allocate asks for them"
        return timings.predicted(graph, removed)
    if budget.quantity == "size":
        return stored_bytes(graph, removed, budget.packing, biases)
    left = cost(graph, removed, biases)
    by_quantity = {"params": left.params, "macs": left.macs_per_token, "kv": left.kv_bytes_per_token}
    return by_quantity[budget.quantity]


@dataclass(frozen=True)
class Met:
    """What a plan leaves of a budget's quantity.

    Attributes:
        asked: the budget as it was given; left, before: in parameters, bytes, multiply-adds, or milliseconds
            as far as they are predicted; words: for people, in the unit that was asked for.
    """

    asked: str
    left: float
    before: float
    words: str


def met(graph: Graph, target: str, plan: PruningPlan, timings: Timings | None) -> tuple[Met, ...]:
    """What a plan leaves of every quantity that a target has a budget of."""
    return tuple(
        _met(
            budget,
            taken(graph, budget, plan.removed, plan.biases, timings),
            taken(graph, budget, {}, (), timings),
        )
        for budget in budgets_of(target)
        if timings or budget.quantity != "latency"
    )


def _met(budget: Budget, left: float, before: float) -> Met:
    told = ", as predicted" if budget.quantity == "latency" else ""
    return Met(budget.text, left, before, answer(budget, left, before) + told)


def block_of(budgets: Sequence[Budget]) -> int:
    """Of which whole multiples widths must be, so that every row can be packed."""
    return max((PACKINGS[budget.packing].block for budget in budgets), default=1)


def step_of(target: str, multiple: int) -> int:
    """Of which whole multiples widths are, by what is asked for and by the sizes among these budgets."""
    return lcm(multiple, block_of(budgets_of(target)))


def within(
    graph: Graph,
    tracks: Sequence[Track],
    meter: Meter,
    budgets: Sequence[Budget],
    units: Callable[[Counts], Removed],
    *,
    gone: Removed,
    biased: bool,
    timings: Timings | None = None,
) -> tuple[Removed, tuple[str, ...]]:
    """What goes so that every budget is met, and no more than that, every step in its turn.

    Args:
        graph: of the dense model; units: the units that go with so many of every group.
        gone: whole blocks that go in any case; tracks and meter are of what is left.
        biased: modules that read what goes get a bias where they have none; budgets hold these, too.
        timings: of the model on this machine, where a budget is of time.

    Returns:
        The units that go, by group, the blocks among them, and the biases that are added.

    Raises:
        NotPrunableError: the dense model meets all of them, or some cannot be met; says the least.
    """
    dense = {budget: taken(graph, budget, {}, (), timings) for budget in budgets}
    start = {budget: taken(graph, budget, gone, (), timings) for budget in budgets}
    if all(amount <= budget.most(amount) for budget, amount in dense.items()):
        takes = " and ".join(typed(budget, amount) for budget, amount in dense.items())
        asked = ",".join(budget.text for budget in budgets)
        raise NotPrunableError(f"The model takes {takes} as it is, so target {asked} is met; ask for less.")
    over = {budget: start[budget] - budget.most(dense[budget]) for budget in budgets}
    while max(over.values()) > 0:
        goals = {
            budget: Goal(_saved(graph, meter, budget, timings), more)
            for budget, more in over.items()
            if more > 0
        }
        part = Part(useful(tracks, [*goals.values()]), (*goals.values(),), least=True)
        _check_reach(part, goals, dense, start)
        removed = gone | units(solve(part))
        biases = missing_biases(graph, removed) if biased else ()
        left = {budget: taken(graph, budget, removed, biases, timings) for budget in budgets}
        # Times are no whole numbers: what is over by rounding alone is met.
        short = {b: left[b] - b.most(dense[b]) * (1 + _ROUNDING) for b in budgets}
        if max(short.values()) <= 0:
            return removed, biases
        # What the biases take has to go besides; with more units gone there may be more of them.
        over = {budget: more + max(0.0, short[budget]) for budget, more in over.items()}
    return gone, ()


def _saved(graph: Graph, meter: Meter, budget: Budget, timings: Timings | None) -> Callable[[Counts], float]:
    """How much of a budget's quantity goes with so many units of every group."""
    if timings and budget.quantity == "latency":
        return timings.of_counts(graph)
    if budget.quantity == "kv":
        return meter.cache_saved

    def takes(name: str, shape: Sequence[int]) -> float:
        parameter = graph.parameters[name]
        if budget.quantity == "size":
            return bytes_of(parameter, shape, budget.packing)
        return prod(shape) * (parameter.macs_per_token if budget.quantity == "macs" else 1)

    return lambda counts: meter.saved(counts, takes)


def _check_reach(
    part: Part, goals: Mapping[Budget, Goal], dense: Mapping[Budget, float], start: Mapping[Budget, float]
) -> None:
    """Raises NotPrunableError where even with every step taken a budget is not met; says the least of it."""
    every = part.every() if part.tracks else None
    gone = {
        budget: goal.saved(part.counts(every)) if every is not None else 0.0 for budget, goal in goals.items()
    }
    short = [budget for budget, goal in goals.items() if gone[budget] < goal.amount]
    if short:
        # The biases that are added then are part of what has to go.
        beside = {b: goals[b].amount - (start[b] - b.most(dense[b])) for b in short}
        least = ",".join(typed(b, start[b] - gone[b] + beside[b], up=True, dense=dense[b]) for b in short)
        raise NotPrunableError(
            f"Target {','.join(budget.text for budget in short)} is out of reach: the least is {least}, "
            "since one unit of every group must stay, and what kinds, layers, max_share and align leave. "
            "Ask for more, or add kinds or layers."
        )
