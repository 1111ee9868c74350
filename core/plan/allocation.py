"""Scores and a target -> a plan. Arithmetic on counts, so a preview of a 7B model is instant.

`ranking` puts every step that may be taken in one order, `solving` takes as many as meet the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from core.errors import NotPrunableError, SpecError
from core.graph.records import Graph, Group
from core.plan.aligned import about_widths
from core.plan.blocks import without_blocks
from core.plan.budgets import Removed, step_of, within
from core.plan.cost import params_in, saving, with_costs
from core.plan.dropping import Worth, droppable, dropped
from core.plan.latency import Timings, require_timed
from core.plan.meter import Counts, Meter
from core.plan.ranking import Curves, Scores, Track, removal_order, tracks
from core.plan.records import PruningPlan, bias_sizes, missing_biases
from core.plan.solving import Goal, Part, solve
from core.plan.uniform import alike, in_turns, joined
from core.spec.budget import budgets_of
from core.spec.checks import check_kind_sparsity, check_name, check_sparsity, parse_layers
from core.spec.choices import SCOPES
from core.spec.depth import drops_of

DEFAULT_KINDS = ("query_head", "ffn_channel")
#: group id -> its units in the order in which they go.
Orders = Mapping[str, NDArray[np.int64]]


def allocate(
    graph: Graph,
    scores: Scores | None,
    *,
    sparsity: float,
    scope: str = "local",
    kinds: Sequence[str] = DEFAULT_KINDS,
    layers: str | None = None,
    kind_sparsity: Mapping[str, float] | None = None,
    target: str = "",
    drop: str = "",
    worth: Worth | None = None,
    multiple: int = 1,
    uniform_heads: bool = False,
    uniform: bool = False,
    max_share: float = 1.0,
    biased: bool = False,
    timings: Timings | None = None,
    curves: Curves | None = None,
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
        target: budgets in the place of all sparsities, see `core.spec.budget`; a size in blocks makes
            `multiple` one of theirs.
        drop: whole blocks that go first, as in `core.spec.depth`; they count towards sparsity and target.
        worth: block -> what it is worth, lowest goes; None previews, for sizes alone.
        multiple: channels that stay are whole multiples of it, in groups that lose some.
        uniform_heads, uniform: all layers keep the same heads, or the same of all, see `core.plan.uniform`.
        max_share: the largest share of its units that one group may lose.
        biased: modules that read what goes get a bias where they have none; the target counts it.
        timings: of the model on this machine, where the target has a latency.
        curves: what each group costs, for scope `searched`; without them every group loses alike.

    Returns:
        A plan within one unit of the target (one step of `multiple`), with at least one unit of every
        group left. It meets every budget.

    Raises:
        SpecError: a sparsity, scope, multiple or layer range that does not exist.
        NotPrunableError: nothing to prune in scope, or the target is out of reach; says what is reachable.
    """
    check_sparsity(sparsity)
    check_name("scope", scope, SCOPES)
    check_kind_sparsity(kind_sparsity or {}, kinds)
    gone, budgets = dropped(graph, drop, worth, layers), budgets_of(target)
    if any(budget.quantity == "latency" for budget in budgets):
        timings = require_timed(timings, target)
    dense, (graph, _) = graph, without_blocks(graph, gone)
    groups = groups_in_scope(graph, kinds, layers)
    scope_of = [group for kind in drops_of(drop) for group in droppable(dense, kind, layers)]
    scope_of += groups_in_scope(dense, kinds, layers)
    kinds_alike = alike(uniform_heads, uniform)
    orders = {group.id: removal_order(group, scores) for group in groups}
    orders |= {g.id: in_turns(g, orders[g.id]) for g in groups if g.kind in kinds_alike}
    multiple = step_of(target, multiple)
    requests = _requests(
        graph,
        groups,
        scores,
        orders,
        sparsity,
        kind_sparsity or {},
        scope,
        multiple,
        max_share,
        kinds_alike,
        curves,
    )
    if gone:
        total, taken = params_in(dense, scope_of), saving(dense, gone).params
        rest = requests[0] if requests else _Request([], Meter(graph, {}), 0.0, 0)  # all in scope may be gone
        requests = [replace(rest, goal=sparsity * total - taken, total=total, gone=taken)]
    removed, biases = (
        within(
            dense,
            requests[0].tracks,
            requests[0].meter,
            budgets,
            partial(_units, orders),
            gone=gone,
            biased=biased,
            timings=timings,
        )
        if budgets
        else _near(graph, requests, orders, biased)
    )
    removed |= gone
    notes = _remarks(curves if scope == "searched" else scores, scope, multiple)
    notes += ["Made without measurements of blocks: those that go will be others."] * bool(gone and not worth)
    overall = sum(each.goal + each.gone for each in requests) / sum(each.total for each in requests)
    plan = PruningPlan(
        removed=removed, model=model or graph.model, method=method, scope=scope,
        kinds=(*kinds, *drops_of(drop)),
        target=overall if kind_sparsity else sparsity, layers=layers, biases=biases,
        notes=(*_left_out(graph, kinds), *notes),
    )  # fmt: skip
    counted = with_costs(dense, plan, scope_of)
    counted = replace(counted, notes=(*about_widths(dense, removed, biases), *counted.notes))
    return replace(counted, target=counted.sparsity) if budgets else counted


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


def _remarks(spread_by: object, scope: str, multiple: int) -> list[str]:
    remarks = []
    if spread_by is None and scope != "local":
        what = "measurements" if scope == "searched" else "scores"
        remarks.append(f"Made without {what}, so every group loses alike; {scope} scope spreads by them.")
    if multiple > 1:
        remarks.append(
            f"Channels that stay are whole multiples of {multiple}: the target is met within one such step."
        )
    return remarks


@dataclass(frozen=True)
class _Request:
    """Groups that share one target.

    Attributes:
        goal: how many parameters shall go, of `total`, beside those that are `gone` with whole blocks.
    """

    tracks: list[Track]
    meter: Meter
    goal: float
    total: int
    gone: int = 0

    def part(self) -> Part:
        """What is to be solved."""
        return Part(self.tracks, (Goal(self.meter.removed, self.goal),))


def _requests(
    graph: Graph,
    groups: Sequence[Group],
    scores: Scores | None,
    orders: Orders,
    sparsity: float,
    kind_sparsity: Mapping[str, float],
    scope: str,
    multiple: int,
    max_share: float,
    kinds_alike: Sequence[str],
    curves: Curves | None,
) -> list[_Request]:
    """One request per kind that has a target of its own, and one for all other kinds together."""
    shared = [group for group in groups if group.kind not in kind_sparsity]
    targets = [(shared, sparsity)] if shared else []
    targets += [([g for g in groups if g.kind == kind], target) for kind, target in kind_sparsity.items()]
    requests = []
    for members, target in targets:
        total = params_in(graph, members)
        meter = Meter(graph, {group.id: orders[group.id] for group in members})
        steps = joined(tracks(graph, members, scores, scope, multiple, curves), kinds_alike)
        steps = [track.up_to(max_share) for track in steps]
        requests.append(_Request(steps, meter, target * total, total))
    return requests


def _near(
    graph: Graph, requests: Sequence[_Request], orders: Orders, biased: bool
) -> tuple[Removed, tuple[str, ...]]:
    """The units that go so that the sparsities are met, and the biases that are added."""
    removed = _removed(orders, requests)
    biases = missing_biases(graph, removed) if biased else ()
    if biases:
        extra = sum(bias_sizes(graph, biases).values()) / len(requests)
        more = [replace(request, goal=request.goal + extra) for request in requests]
        removed = _removed(orders, more)
        biases = missing_biases(graph, removed)
    return removed, biases


def _removed(orders: Orders, requests: Sequence[_Request]) -> Removed:
    """The units that go, by group, sorted; groups that lose none are left out."""
    counts: Counts = {}
    for request in requests:
        if request.goal > 0:
            _check_reach(request)
            counts |= solve(request.part())
    return _units(orders, counts)


def _units(orders: Orders, counts: Counts) -> Removed:
    """The first units of every group's order, sorted."""
    return {group: tuple(sorted(orders[group][:count].tolist())) for group, count in counts.items() if count}


def _check_reach(request: _Request) -> None:
    part = request.part()
    most = request.meter.removed(part.counts(part.every()))
    if most < request.goal:
        raise NotPrunableError(
            f"At most {(most + request.gone) / request.total:.4f} of the parameters in scope can go, since "
            "one unit of every group must stay, and what max_share and align leave; "
            f"{(request.goal + request.gone) / request.total:.4f} was asked for. "
            "Lower the sparsity or add kinds or layers."
        )
