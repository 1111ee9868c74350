"""Scores and a target -> a plan. Arithmetic on counts, so a preview of a 7B model is instant.

`ranking` puts every step that may be taken in one order. As many are taken as meet the target, counted
in parameters; the finest steps (FFN channels) take up what the coarse ones leave over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.errors import NotPrunableError, SpecError
from core.graph.records import Graph, Group
from core.plan.cost import params_in, with_costs
from core.plan.meter import Counts, Meter
from core.plan.ranking import Scores, Track, removal_order, tracks
from core.plan.records import PruningPlan, bias_sizes, missing_biases
from core.spec.checks import check_kind_sparsity, check_name, check_sparsity, parse_layers
from core.spec.prune import SCOPES

DEFAULT_KINDS = ("query_head", "ffn_channel")


def allocate(
    graph: Graph,
    scores: Scores | None,
    *,
    sparsity: float,
    scope: str = "local",
    kinds: Sequence[str] = DEFAULT_KINDS,
    layers: str | None = None,
    kind_sparsity: Mapping[str, float] | None = None,
    multiple: int = 1,
    max_share: float = 1.0,
    biased: bool = False,
    method: str = "",
    model: str = "",
) -> PruningPlan:
    """Choose the units that go so that `sparsity` of the parameters in scope goes, and count the costs.

    Args:
        scores: group id -> one score per unit, higher = keep, (units,). None previews with equal
            scores: the lowest unit numbers go, from every group alike.
        sparsity: fraction of the parameters in the prunable groups in scope, in [0, 1).
        scope: how the target is spread, see `core.plan.ranking`.
        layers: `first:last`, last not included, or a preset's name; None for all.
        kind_sparsity: kind -> its own target, of the parameters in its own groups; the kinds it does
            not name share `sparsity`.
        multiple: channels that stay are whole multiples of it, in groups that lose some.
        max_share: the largest share of its units that one group may lose.
        biased: modules that read what goes get a bias where they have none; the target counts it.

    Returns:
        A plan within one unit of the target (one step of `multiple`), with at least one unit of every
        group left.

    Raises:
        SpecError: a sparsity, scope, multiple or layer range that does not exist.
        NotPrunableError: nothing to prune in scope, or the target is out of reach; says what is reachable.
    """
    check_sparsity(sparsity)
    check_name("scope", scope, SCOPES)
    check_kind_sparsity(kind_sparsity or {}, kinds)
    groups = groups_in_scope(graph, kinds, layers)
    orders = {group.id: removal_order(group, scores) for group in groups}
    parts = _parts(graph, groups, scores, orders, sparsity, kind_sparsity or {}, scope, multiple)
    parts = [replace(part, tracks=[track.up_to(max_share) for track in part.tracks]) for part in parts]
    removed = _removed(orders, parts)
    biases = missing_biases(graph, removed) if biased else ()
    if biases:
        extra = sum(bias_sizes(graph, biases).values()) / len(parts)
        removed = _removed(orders, [replace(part, goal=part.goal + extra) for part in parts])
        biases = missing_biases(graph, removed)
    overall = sum(part.goal for part in parts) / sum(part.total for part in parts)
    plan = PruningPlan(
        removed=removed, model=model or graph.model, method=method, scope=scope, kinds=tuple(kinds),
        target=overall if kind_sparsity else sparsity, layers=layers, biases=biases,
        notes=(*_left_out(graph, kinds), *_remarks(scores, scope, multiple)),
    )  # fmt: skip
    return with_costs(graph, plan, groups)


def groups_in_scope(graph: Graph, kinds: Sequence[str], layers: str | None = None) -> list[Group]:
    """The prunable groups of these kinds in these layers.

    Raises:
        SpecError: kinds that exclude each other, or layers that do not exist.
        NotPrunableError: there is no such group; says which kinds the model has, or why they cannot go.
    """
    if {"query_head", "kv_group"} <= set(kinds):
        raise SpecError(
            "kinds must be either query_head or kv_group, since both own the same heads; got both."
        )
    inside = parse_layers(layers, len(graph.layer_modules)) if layers is not None else None
    all_layers = inside is None or len(inside) == len(graph.layer_modules)
    if not all_layers and "residual_channel" in kinds:
        raise SpecError(
            "residual channels run through all layers; leave layers out, or residual_channel out of kinds."
        )
    for kind in kinds:
        _require_kind(graph, kind)
    chosen = [group for group in graph.of_kind(*kinds) if group.prunable]
    return [group for group in chosen if all_layers or inside is None or group.layer in inside]


def _require_kind(graph: Graph, kind: str) -> None:
    groups = graph.of_kind(kind)
    if any(group.prunable for group in groups):
        return
    reasons = {group.reason for group in groups} | {
        refusal["reason"] for refusal in graph.not_prunable if refusal["kind"] == kind
    }
    offered = sorted({group.kind for group in graph.groups if group.prunable})
    why = f": {'; '.join(sorted(str(reason) for reason in reasons))}" if reasons else ""
    raise NotPrunableError(
        f"{graph.model} has no {kind} that can be pruned{why}. "
        f"It has {', '.join(offered) or 'nothing to prune'}."
    )


def _left_out(graph: Graph, kinds: Sequence[str]) -> list[str]:
    return [f"{g.id} is left out: {g.reason}" for g in graph.of_kind(*kinds) if not g.prunable]


def _remarks(scores: Scores | None, scope: str, multiple: int) -> list[str]:
    remarks = []
    if scores is None and scope != "local":
        remarks.append(f"Made without scores, so every group loses alike; {scope} scope spreads by them.")
    if multiple > 1:
        remarks.append(
            f"Channels that stay are whole multiples of {multiple}: the target is met within one such step."
        )
    return remarks


@dataclass(frozen=True)
class _Part:
    """Groups that share one target.

    Attributes:
        goal: how many parameters shall go, of `total`.
    """

    tracks: list[Track]
    meter: Meter
    goal: float
    total: int

    def order(self) -> NDArray[np.int64]:
        """The number of the track that takes each step, in turn, (steps of all tracks,)."""
        owner = np.repeat(np.arange(len(self.tracks)), [len(track.turns) for track in self.tracks])
        turns = np.concatenate([track.turns for track in self.tracks])
        even = np.concatenate([track.even for track in self.tracks])
        return owner[np.lexsort((even, turns))]

    def counts(self, taken: NDArray[np.int64]) -> Counts:
        """Units gone of every group after these steps: the number of the track that takes each, (steps,)."""
        steps = np.bincount(taken, minlength=len(self.tracks))
        counts: Counts = {}
        for track, number in zip(self.tracks, steps, strict=True):
            counts |= track.after(int(number))
        return counts

    def removed(self, taken: NDArray[np.int64]) -> int:
        """Parameters gone after these steps."""
        return self.meter.removed(self.counts(taken))


def _parts(
    graph: Graph,
    groups: Sequence[Group],
    scores: Scores | None,
    orders: Mapping[str, NDArray[np.int64]],
    sparsity: float,
    kind_sparsity: Mapping[str, float],
    scope: str,
    multiple: int,
) -> list[_Part]:
    """One part per kind that has a target of its own, and one for all other kinds together."""
    shared = [group for group in groups if group.kind not in kind_sparsity]
    targets = [(shared, sparsity)] if shared else []
    targets += [([g for g in groups if g.kind == kind], target) for kind, target in kind_sparsity.items()]
    parts = []
    for members, target in targets:
        total = params_in(graph, members)
        meter = Meter(graph, {group.id: orders[group.id] for group in members})
        parts.append(_Part(tracks(graph, members, scores, scope, multiple), meter, target * total, total))
    return parts


def _removed(orders: Mapping[str, NDArray[np.int64]], parts: Sequence[_Part]) -> dict[str, tuple[int, ...]]:
    """The units that go, by group, sorted; groups that lose none are left out."""
    counts = {group: count for part in parts for group, count in _solve(part).items() if count}
    return {group: tuple(sorted(orders[group][:count].tolist())) for group, count in counts.items()}


def _solve(part: _Part) -> Counts:
    """Find the counts whose parameters come nearest to the goal, every step in its turn."""
    order = part.order()
    if part.goal <= 0:
        return {}
    _check_reach(part, order)
    short = _most(lambda n: part.removed(order[:n]) <= part.goal, len(order))
    finest = _finest(part)
    fine = np.array([part.tracks[track].kind == finest for track in order], dtype=np.bool_)
    later = order[short:][fine[short:]]  # finer steps fill what is missing ...
    candidates = [np.concatenate([order[:short], later[:n]]) for n in _around(part, order[:short], later)]
    taken = np.flatnonzero(fine[: short + 1])[::-1]  # ... or are given back after one step too many
    beyond = order[: short + 1]
    back = _most(lambda n: part.removed(np.delete(beyond, taken[:n])) >= part.goal, len(taken))
    candidates += [np.delete(beyond, taken[:n]) for n in (back, min(back + 1, len(taken)))]
    return part.counts(min(candidates, key=lambda steps: abs(part.removed(steps) - part.goal)))


def _around(part: _Part, fixed: NDArray[np.int64], more: NDArray[np.int64]) -> tuple[int, int]:
    """How many of `more` to add so as to stay just below the goal, and just above."""
    enough = _most(lambda n: part.removed(np.concatenate([fixed, more[:n]])) <= part.goal, len(more))
    return enough, min(enough + 1, len(more))


def _most(holds: Callable[[int], bool], most: int) -> int:
    """The largest n in 0..most for which `holds`, which is true up to some n >= 0 and false beyond."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _finest(part: _Part) -> str:
    """The kind whose first step costs the fewest parameters."""
    first = {t.kind: number for number, t in reversed([*enumerate(part.tracks)]) if len(t.turns)}
    return min(first, key=lambda kind: part.removed(np.array([first[kind]])))


def _check_reach(part: _Part, order: NDArray[np.int64]) -> None:
    most = part.removed(order)
    if most < part.goal:
        raise NotPrunableError(
            f"At most {most / part.total:.4f} of the parameters in scope can go, since one unit of every "
            f"group must stay, and what max_share leaves; {part.goal / part.total:.4f} was asked for. "
            "Lower the sparsity or add kinds or layers."
        )
