"""Model, groups and statistics -> one score per unit and criterion."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.artifacts import Scores
from core.capture import DEFAULT_KINDS, Statistics
from core.criteria.registry import CRITERIA, GroupView, Part
from core.errors import DataError
from core.graph.records import Graph, Group, Member


def score(
    model: nn.Module,
    graph: Graph,
    names: Sequence[str],
    statistics: Statistics | None,
    *,
    seed: int,
    kinds: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Scores:
    """Score every unit of the prunable groups.

    Under grouped-query attention a query head's score is that of its own query rows and output
    columns plus an equal share of the key and value slices it uses together with others.

    Args:
        statistics: from `capture`, or None if no criterion asks for any.
        seed: with the group's id it seeds the random numbers of that group.
        kinds: which kinds to score; None for those that were captured.
        options: the criteria's own options, where they differ from the defaults.

    Returns:
        criterion -> group id -> scores, higher = keep, (units,), float32.

    Raises:
        UnknownNameError: no such criterion.
        DataError: a criterion needs statistics that were not captured.
    """
    entries = [CRITERIA[name] for name in names]
    wanted = tuple(kinds) if kinds is not None else (statistics.kinds if statistics else DEFAULT_KINDS)
    needs = {need for entry in entries for need in entry.needs}
    _require(statistics, needs, wanted, names)
    scores: Scores = {name: {} for name in names}
    with torch.no_grad():
        for group in graph.of_kind(*wanted):
            if not group.prunable:
                continue
            for entry in entries:
                view = _view(model, graph, group, statistics, entry.needs, seed)
                view = replace(view, options=entry.settings(options or {}))
                scores[entry.name][group.id] = entry.component(view).float().cpu().numpy()
    return scores


def _require(
    statistics: Statistics | None, needs: set[str], kinds: Sequence[str], names: Sequence[str]
) -> None:
    if not needs:
        return
    captured = set(statistics.values) if statistics else set()
    covered = set(statistics.kinds) if statistics else set()
    if needs <= captured and set(kinds) <= covered:
        return
    raise DataError(
        f"{', '.join(names)} need {', '.join(sorted(needs))} of {', '.join(kinds)}; captured were "
        f"{', '.join(sorted(captured)) or 'none'} of {', '.join(sorted(covered)) or 'nothing'}. "
        "Capture them first, with these kinds."
    )


def _view(
    model: nn.Module,
    graph: Graph,
    group: Group,
    statistics: Statistics | None,
    needs: Sequence[str],
    seed: int,
) -> GroupView:
    slices = list(_slices(graph, group))
    weights = (
        [] if needs else [Part(_of_units(model, member, index), share) for member, index, share in slices]
    )
    found: dict[str, Sequence[Part]] = {}
    for need in needs:
        assert statistics is not None
        found[need] = [
            Part(_captured(statistics.values[need], member, index), share) for member, index, share in slices
        ]
    rng = np.random.default_rng([seed, zlib.crc32(group.id.encode())])
    return GroupView(group.units, weights, rng, found)


def _slices(graph: Graph, group: Group) -> Iterator[tuple[Member, Tensor, Tensor]]:
    """Members with the indices of each unit, (units, width), and how much of them counts, (units,)."""
    one = torch.ones(group.units)
    for member in group.members:
        yield member, torch.from_numpy(member.index()), one
    if group.parent is None:
        return
    own = {(member.parameter, member.dim): member.index() for member in group.members}
    parents = np.asarray(group.parent_unit)
    share = torch.from_numpy(1.0 / np.bincount(parents)[parents]).float()
    for member in graph.group(group.parent).members:
        index = member.index()
        rows = ~np.isin(index, own.get((member.parameter, member.dim), ())).any(axis=0)
        if rows.any():  # keys and values; the parent also lists its query heads' own slices
            yield member, torch.from_numpy(index[:, rows][parents]), share


def _of_units(model: nn.Module, member: Member, index: Tensor) -> Tensor:
    """The numbers of a parameter that belong to each unit, (units, elements)."""
    parameter = model.get_parameter(member.parameter)
    whole, dim = parameter.detach(), member.dim
    if member.at is not None:
        whole, dim = whole[member.at], dim - 1
    rows = whole.movedim(dim, 0).index_select(0, index.flatten().to(parameter.device))
    return rows.reshape(len(index), -1).float().cpu()


def _captured(values: dict[tuple[str, int], Tensor], member: Member, index: Tensor) -> Tensor:
    """The captured numbers of each unit, (units, width)."""
    known = values[member.parameter, member.dim].cpu()
    if member.at is not None:
        known = known[member.at]
    return (known if known.dim() == 1 else known.sum(dim=0))[index]
