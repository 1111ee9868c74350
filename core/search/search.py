"""Search for how much each group gives: curves, a knapsack, then rounds around the best plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.graph.records import Group
from core.plan.curves import Curve, widths_of
from core.plan.ranking import Curves, Scores, removal_order
from core.plan.records import PruningPlan
from core.search.losses import Losses

#: The largest share of a group's units by which a round changes what it gives.
REACH = 0.125
#: By how much less, if that was no better.
STEPS = (1.0, 0.5, 0.25)
#: Shares of what is to go at which the plans of the curves alone are measured, too: the front.
FRONT = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Trial:
    """A plan whose perplexity was measured.

    Attributes:
        round: in which it was made, 0 for plans of the curves alone and of other scopes.
        better: whether it became the best plan.
    """

    round: int
    sparsity: float
    params: int
    ppl: float
    better: bool


@dataclass
class Searcher:
    """A search at work.

    Attributes:
        losses, groups, scores: what measures, what gives, and what orders the units of each group.
        starts: plans of other scopes, one of which the search may set out from.
        plan: the plan for curves, of the target or of that share of it.
        perplexity: of a plan, on the whole text that chooses.
        measured: a number by its name, measured by the function unless it was before.
        tell: called with the measurements done and in all; on_trial: with each trial.
    """

    losses: Losses
    groups: Sequence[Group]
    scores: Scores
    starts: Sequence[PruningPlan]
    plan: Callable[[Curves, float], PruningPlan]
    perplexity: Callable[[PruningPlan], float]
    measured: Callable[[str, Callable[[], float]], float]
    rounds: int
    tell: Callable[[int, int], None]
    on_trial: Callable[[Trial], None]
    curves: dict[str, Curve] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    _done: int = 0

    @property
    def whole(self) -> list[Trial]:
        """The trials of the whole target."""
        return self.trials[len(FRONT) :]

    def run(self) -> PruningPlan:
        """The best plan that was met."""
        self._orders = {group.id: removal_order(group, self.scores) for group in self.groups}
        self.curves = self._measure({}, 0, {group.id: (0, *widths_of(group.units)) for group in self.groups})
        for share in FRONT:
            self._try(self.plan(self.curves, share), 0, None)
        best = self.plan(self.curves, 1.0)
        lowest = self._try(best, 0, None)
        for start in self.starts:
            ppl = self._try(start, 0, lowest)
            best, lowest = (start, ppl) if ppl < lowest else (best, lowest)
        reach = REACH
        for number in range(1, self.rounds + 1):
            better = self._round(number, best, lowest, reach)
            if better is None and all(round(reach * group.units) <= 1 for group in self.groups):
                break  # the next round would measure the same once more
            best, lowest, reach = better or (best, lowest, reach / 2)
        return best

    def _round(
        self, number: int, best: PruningPlan, lowest: float, reach: float
    ) -> tuple[PruningPlan, float, float] | None:
        """A better plan near this one, its perplexity, and how far it went; None if none was better."""
        gone = {group.id: len(best.removed.get(group.id, ())) for group in self.groups}
        far = {group.id: max(1, round(reach * group.units)) for group in self.groups}
        curves = self._measure(
            best.removed,
            number,
            {
                group.id: tuple(sorted({max(0, n - r), n, min(group.units - 1, n + r)}))
                for group in self.groups
                for n, r in [(gone[group.id], far[group.id])]
            },
        )
        seen = [best.removed]
        for step in STEPS:
            near = {name: curve.near(gone[name], round(far[name] * step)) for name, curve in curves.items()}
            candidate = self.plan(near, 1.0)
            if candidate.removed in seen:
                continue
            seen.append(candidate.removed)
            ppl = self._try(candidate, number, lowest)
            if ppl < lowest:
                return candidate, ppl, reach * step
        return None

    def _measure(
        self, base: Mapping[str, tuple[int, ...]], number: int, at: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Curve]:
        """The loss of every group with so many units gone, everything else as in `base`, in this round."""
        place, later = _name(base), 3 * len(self.groups) * (self.rounds - number)
        total = self._done + sum(map(len, at.values())) + later
        curves = {}
        with self.losses.around(base) as here:
            for group_id, counts in at.items():
                now = len(base.get(group_id, ()))
                loss = []
                for count in counts:
                    loss.append(here if count == now else self._loss(place, group_id, count))
                    self._done += 1
                    self.tell(self._done, total)
                curves[group_id] = Curve(counts, tuple(loss))
        return curves

    def _loss(self, place: str, group: str, count: int) -> float:
        units = tuple(sorted(self._orders[group][:count].tolist()))
        return self.measured(f"loss/{place}/{group}/{count}", lambda: self.losses.without(group, units))

    def _try(self, plan: PruningPlan, number: int, lowest: float | None) -> float:
        ppl = self.measured(f"ppl/{_name(plan.removed)}", lambda: self.perplexity(plan))
        assert plan.after, "a plan is allocated with its costs"
        better = lowest is None or ppl < lowest
        self.trials.append(Trial(number, plan.sparsity, plan.after.params, ppl, better))
        self.on_trial(self.trials[-1])
        return ppl


def _name(removed: Mapping[str, Any]) -> str:
    """A short name of the units that go."""
    written = json.dumps({group: list(units) for group, units in sorted(removed.items())})
    return hashlib.sha256(written.encode()).hexdigest()[:16]
