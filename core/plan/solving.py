"""How many units of every group go, so that a target is met: every step in its turn.

`ranking` puts every step that may be taken in one order. As many are taken as meet the target; the finest
steps (FFN channels) take up what the coarse ones leave over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.plan.meter import Counts
from core.plan.ranking import Track


@dataclass(frozen=True)
class Goal:
    """A quantity of which so much shall go.

    Attributes:
        saved: how much goes with so many units of every group.
        amount: how much shall go.
    """

    saved: Callable[[Counts], float]
    amount: float


@dataclass(frozen=True)
class Part:
    """Groups that share one target.

    Attributes:
        goals: all of them are to be met.
        least: whether at least these amounts go, or as nearly as possible.
    """

    tracks: list[Track]
    goals: tuple[Goal, ...]
    least: bool = False

    def order(self) -> NDArray[np.int64]:
        """The number of the track that takes each step, in turn, (steps of all tracks,)."""
        owner = self.every()
        turns = np.concatenate([track.turns for track in self.tracks])
        even = np.concatenate([track.even for track in self.tracks])
        return owner[np.lexsort((even, turns))]

    def every(self) -> NDArray[np.int64]:
        """The number of the track that takes each step, track by track, (steps of all tracks,)."""
        return np.repeat(np.arange(len(self.tracks)), [len(track.turns) for track in self.tracks])

    def counts(self, taken: NDArray[np.int64]) -> Counts:
        """Units gone of every group after these steps: the number of the track that takes each, (steps,)."""
        steps = np.bincount(taken, minlength=len(self.tracks))
        counts: Counts = {}
        for track, number in zip(self.tracks, steps, strict=True):
            counts |= track.after(int(number))
        return counts

    def progress(self, taken: NDArray[np.int64]) -> float:
        """How much of the goal that is furthest off is reached after these steps; 1 where all are met."""
        counts = self.counts(taken)
        return min(goal.saved(counts) / goal.amount for goal in self.goals)


def solve(part: Part) -> Counts:
    """Find the counts that come nearest to the goals, which are within reach, every step in its turn.

    With `least` they meet every goal, and no finest step is taken that none of them needs.
    """
    order = part.order()
    short = _most(lambda n: _below(part, order[:n]), len(order))
    finest = _finest(part)
    fine = np.array([track.kind == finest for track in part.tracks], dtype=np.bool_)[order]
    later = order[short:][fine[short:]]  # finer steps fill what is missing ...
    candidates = [np.concatenate([order[:short], later[:n]]) for n in _around(part, order[:short], later)]
    taken = np.flatnonzero(fine[: short + 1])[::-1]  # ... or are given back after one step too many
    beyond = order[: short + 1]
    back = _most(lambda n: part.progress(np.delete(beyond, taken[:n])) >= 1, len(taken))
    candidates += [np.delete(beyond, taken[:n]) for n in (back, min(back + 1, len(taken)))]
    off = [part.progress(steps) - 1 for steps in candidates]
    if part.least:
        meets = [number for number, more in enumerate(off) if more >= 0]
        return part.counts(candidates[min(meets, key=lambda number: (off[number], number))])
    return part.counts(candidates[min(range(len(off)), key=lambda number: abs(off[number]))])


def _below(part: Part, steps: NDArray[np.int64]) -> bool:
    return part.progress(steps) < 1 if part.least else part.progress(steps) <= 1


def _around(part: Part, fixed: NDArray[np.int64], more: NDArray[np.int64]) -> tuple[int, int]:
    """How many of `more` to add so as to stay just below the goal, and just above."""
    enough = _most(lambda n: _below(part, np.concatenate([fixed, more[:n]])), len(more))
    return enough, min(enough + 1, len(more))


def _most(holds: Callable[[int], bool], most: int) -> int:
    """The largest n in 0..most for which `holds`, which is true up to some n >= 0 and false beyond."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _finest(part: Part) -> str:
    """The kind whose first step comes nearest to nothing."""
    first = {t.kind: number for number, t in reversed([*enumerate(part.tracks)]) if len(t.turns)}
    return min(first, key=lambda kind: _worth(part, first[kind]))


def _worth(part: Part, track: int) -> float:
    """How much the first step of a track brings of all goals."""
    counts = part.counts(np.array([track]))
    return sum(goal.saved(counts) / goal.amount for goal in part.goals)


def useful(tracks: Sequence[Track], goals: Sequence[Goal]) -> list[Track]:
    """The tracks that bring something of one of these goals."""
    whole = Part([*tracks], tuple(goals))
    return [track for number, track in enumerate(tracks) if _brings(whole, number, len(track.turns))]


def _brings(part: Part, track: int, steps: int) -> bool:
    counts = part.counts(np.full(steps, track))
    return any(goal.saved(counts) > 0 for goal in part.goals)
