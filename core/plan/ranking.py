"""Which units go first: scores and a scope -> steps of all groups, comparable with each other.

A *step* is the least that may go of a group at once: a unit, as many channels as keep its width a whole
multiple, or one channel of every expert of a stack. A scope says when a step's turn comes:

- `local`: at which fraction of its group it goes, so that all groups lose alike. Fractions of a unit are
  rounded with an offset of their own per layer, spread evenly, so that the roundings cancel over the
  model and no end of it is favoured.
- `global`: its score per parameter, in units of its kind's mean. LLM-Pruner ranks the raw sums of heads
  and of single channels in one list, where a head, a hundred times as large, never goes.
- `al_am`: by how far its channels stand out in its layer, for scores that were made so by
  `core.criteria.flap.al_am`. All kinds are in one list. Source: FLAP, arXiv:2312.11983, Section 3.2 (adaptive
  structure search, "AL-AM"), as released.
- `standardised`: by how many standard deviations its score is off the mean of its group: our variant, for
  scores of any criterion. Heads, whose sums over many channels vary little, mostly lie below the long tail of
  single channels, so it wants a target per kind.
- `searched`: by how much worse the model gets per parameter, as measured by `core.search`; scores only order
  the units within a group.
- `raw`: its score as it is, for scores that are comparable over all groups, as learned masks are.

What a unit costs counts a second time when the target is met: in parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import NotPrunableError, SpecError
from core.graph.records import Graph, Group
from core.plan.cost import params_in
from core.plan.curves import Curve, marginal
from core.plan.meter import Counts

Scores = Mapping[str, NDArray[np.floating]]
Values = NDArray[np.float64]
#: group id -> what it costs.
Curves = Mapping[str, Curve]
#: Kinds whose widths a fast kernel cares for.
WIDTHS = ("ffn_channel", "residual_channel")
_GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo one, are spread as evenly as can be


@dataclass(frozen=True)
class Track:
    """Groups that lose units together, and in which steps.

    Attributes:
        groups: one, or the experts of a stack.
        counts: units gone of each group after 0, 1, … steps, (steps + 1,).
        turns: when each step's turn comes, lowest first, (steps,).
        even: the same under local scope; breaks ties.
    """

    groups: tuple[Group, ...]
    counts: NDArray[np.int64]
    turns: Values
    even: Values

    @property
    def kind(self) -> str:
        """The kind of its units."""
        return self.groups[0].kind

    def after(self, steps: int) -> Counts:
        """How many units of its groups are gone after N steps."""
        return {group.id: int(self.counts[steps]) for group in self.groups}

    def up_to(self, share: float) -> Track:
        """The track without the steps after which a group has lost more than this share of its units."""
        n = int((self.counts <= share * self.groups[0].units).sum())
        return Track(self.groups, self.counts[:n], self.turns[: n - 1], self.even[: n - 1])


def removal_order(group: Group, scores: Scores | None) -> NDArray[np.int64]:
    """Unit numbers in the order in which they go: lowest score first, ties by number, (units,)."""
    if scores is None:
        return np.arange(group.units, dtype=np.int64)
    if group.id not in scores:
        raise NotPrunableError(f"There are no scores for {group.id}; score the kinds that shall be pruned.")
    values = np.asarray(scores[group.id])
    if values.shape != (group.units,) or not np.isfinite(values).all():
        raise NotPrunableError(
            f"{group.id} needs {group.units} finite scores, got {values.size} of which "
            f"{int(np.isfinite(values).sum())} are finite; try float32 if the model overflows."
        )
    return np.argsort(values, kind="stable").astype(np.int64)


def tracks(
    graph: Graph,
    groups: Sequence[Group],
    scores: Scores | None,
    scope: str,
    multiple: int,
    curves: Curves | None = None,
) -> list[Track]:
    """Every step that may be taken, and when its turn comes.

    Args:
        groups: one or more kinds, in order of layer; together they are what is ranked.
        scores: None ranks as for local scope, whatever the scope.
        curves: what each group costs, for `searched`; None ranks as for local scope.
        multiple: of which the widths of `WIDTHS` are kept, unless nothing goes.

    Raises:
        SpecError: a group has no width that is a multiple.
    """
    turns = {group.id: _even(group, place) for group, place in zip(groups, _places(groups), strict=True)}
    even = dict(turns)
    if scope == "searched":
        turns = _searched(graph, groups, curves) if curves else turns
    elif scores is not None and scope != "local":
        spread = {"global": _by_value, "al_am": _al_am, "standardised": _standardised, "raw": _raw}[scope]
        turns = spread(graph, groups, scores)
    together: dict[str, list[Group]] = {}
    for group in groups:
        together.setdefault(_stack(group), []).append(group)
    return [_track(members, turns, even, multiple) for members in together.values()]


def _track(groups: list[Group], turns: dict[str, Values], even: dict[str, Values], multiple: int) -> Track:
    counts = _counts(groups[0], multiple if groups[0].kind in WIDTHS else 1)
    spans = np.diff(counts)

    def means(values: dict[str, Values]) -> Values:
        """The mean of the units that go in each step, over all groups, (steps,)."""
        units = np.mean([values[group.id] for group in groups], axis=0)[: counts[-1]]
        return np.add.reduceat(units, counts[:-1]) / spans if len(spans) else np.empty(0)

    return Track(tuple(groups), counts, means(turns), means(even))


def _counts(group: Group, multiple: int) -> NDArray[np.int64]:
    """How many units may be gone: none, or as many as leave a multiple; never all."""
    if group.units < multiple:
        raise SpecError(
            f"multiple must be at most the width of every group that may go, got {multiple} for {group.id} "
            f"with {group.units} units; take a smaller one."
        )
    left = np.arange((group.units - 1) // multiple * multiple, 0, -multiple, dtype=np.int64)
    return np.concatenate([[0], group.units - left]).astype(np.int64)


def _places(groups: Sequence[Group]) -> list[int]:
    """The number of each group's stack, from 1 up."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(_stack(group), len(numbers) + 1) for group in groups]


def _stack(group: Group) -> str:
    """A name that experts share whose matrices are slices of one parameter, since they must lose alike."""
    stacked = [member.parameter for member in group.members if member.at is not None]
    return stacked[0] if stacked else group.id


def _even(group: Group, place: int) -> Values:
    """The fraction of the group at which each further unit goes, (units,)."""
    return (np.arange(1, group.units + 1) - place * _GOLDEN % 1.0) / group.units


def _searched(graph: Graph, groups: Sequence[Group], curves: Curves) -> dict[str, Values]:
    """Measured loss per parameter of each further unit, lowest first, (units,)."""
    costs = {group.id: params_in(graph, [group]) / group.units for group in groups}
    return {group.id: marginal(curves[group.id], group.units) / costs[group.id] for group in groups}


def _by_value(graph: Graph, groups: Sequence[Group], scores: Scores) -> dict[str, Values]:
    """Scores per parameter, the mean of a kind being one, lowest first, (units,)."""
    values = {}
    for group in groups:
        # Every unit of a group costs the same; a query head pays its share of the keys and values.
        cost = params_in(graph, [group]) / group.units
        values[group.id] = np.sort(np.asarray(scores[group.id], dtype=np.float64)) / cost
    for kind in {group.kind for group in groups}:
        ids = [group.id for group in groups if group.kind == kind]
        mean = np.abs(np.concatenate([values[name] for name in ids])).mean()
        values |= {name: values[name] / (mean or 1.0) for name in ids}
    return values


def _raw(graph: Graph, groups: Sequence[Group], scores: Scores) -> dict[str, Values]:
    """Scores as they are, lowest first, (units,)."""
    return {group.id: np.sort(np.asarray(scores[group.id], dtype=np.float64)) for group in groups}


def _al_am(graph: Graph, groups: Sequence[Group], scores: Scores) -> dict[str, Values]:
    """Scores as they are, lowest first, (units,). Raises SpecError if they are not those of AL-AM."""
    for group in groups:
        values = np.asarray(scores[group.id], dtype=np.float64)
        if abs(values.mean()) > 1e-3 * max(1.0, np.abs(values).max()):
            raise SpecError(
                f"scope al_am takes scores of mean zero in every group, got {values.mean():.3g} for "
                f'{group.id}; make them with core.score_units(..., scope="al_am").'
            )
    return _raw(graph, groups, scores)


def _standardised(graph: Graph, groups: Sequence[Group], scores: Scores) -> dict[str, Values]:
    """Distance of each score from its group's mean in standard deviations, lowest first, (units,)."""
    standardised = {}
    for group in groups:
        values = np.sort(np.asarray(scores[group.id], dtype=np.float64))
        standardised[group.id] = (values - values.mean()) / (values.std() or 1.0)
    return standardised
