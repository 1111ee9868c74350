"""Model, groups and statistics -> one score per unit and criterion."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.capture.names import COARSE, DIVERGENCE, GRADIENTS
from core.capture.slices import Slice, slices
from core.capture.statistics import CAPTURED_KINDS, INPUTS, OUTPUTS, Statistics, capture, check_weights
from core.criteria.flap import al_am
from core.criteria.registry import CRITERIA, Criterion, GroupView, Part, check_scopes
from core.devices.lending import device_of
from core.errors import DataError, SpecError
from core.graph.places import maker_of, reader_of
from core.graph.records import Graph, Group, Member
from core.registry import Entry
from core.results.scores import AL_AM, Scores, ranked_by


def score(
    model: nn.Module,
    graph: Graph,
    names: Sequence[str],
    statistics: Statistics | None,
    *,
    seed: int,
    kinds: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    scopes: Sequence[str] = (),
) -> Scores:
    """Score every unit of the prunable groups.

    Under grouped-query attention a query head's parts are its own query rows and output columns, and
    an equal share of the key and value slices it uses together with others.

    Args:
        statistics: from `capture`, or None if no criterion asks for any.
        seed: with the group's id it seeds the random numbers of that group.
        kinds: which kinds to score; None for those that were captured.
        options: the criteria's own options, where they differ from the defaults.
        scopes: with `al_am` among them, what that ranks by is added for the criteria that score channels.

    Returns:
        criterion, or `core.results.scores.ranked_by` -> group id -> scores, higher = keep, (units,), float32.

    Raises:
        UnknownNameError: no such criterion.
        DataError: a criterion needs statistics that were not captured, or a weight is not finite.
    """
    entries = [CRITERIA[name] for name in names]
    wanted = tuple(kinds) if kinds is not None else (statistics.kinds if statistics else CAPTURED_KINDS)
    check_readable(model, graph, names, wanted)
    _require(statistics, {need for entry in entries for need in entry.needs}, wanted, names)
    scores: Scores = {name: {} for name in names}
    standing = [entry for entry in entries if entry.channels and AL_AM in scopes]
    scores |= {ranked_by(entry.name, AL_AM): {} for entry in standing}
    with torch.no_grad():
        for group in graph.of_kind(*wanted):
            if not group.prunable:
                continue
            parts = _parts(model, graph, group, statistics)
            for entry in entries:
                rng = np.random.default_rng([seed, zlib.crc32(group.id.encode())])
                heads = _heads(graph, group, statistics) if DIVERGENCE in entry.needs else None
                settings = entry.settings(options or {})
                view = GroupView(group.units, group.kind, parts, rng, settings, heads, group.layer)
                said = _scored(model, entry, view)
                scores[entry.name][group.id] = _per_unit(said)
                if entry in standing:
                    scores[ranked_by(entry.name, AL_AM)][group.id] = _array(al_am(said, group.kind))
    return scores


def score_units(
    model: PreTrainedModel,
    graph: Graph,
    criterion: str,
    windows: Tensor | None = None,
    *,
    kinds: Sequence[str] = CAPTURED_KINDS,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    scope: str = "local",
) -> dict[str, NDArray[np.float32]]:
    """Capture what a criterion reads in one pass over calibration windows, and score every unit with it.

    Args:
        criterion: a name of `python -m core methods`, such as taylor_first or wanda.
        windows: token ids, (windows, length); None if the criterion reads weights alone.
        kinds, seed, options: as in `score`.
        scope: the scope that shall rank by the scores: `al_am` has scores of its own.

    Returns:
        Group id -> scores, higher = keep, (units,), float32; the unit is the criterion's own.

    Raises:
        UnknownNameError: no such criterion.
        SpecError: `al_am`, and the criterion does not score channels.
        DataError: the criterion needs windows, or a weight or activation is not finite.
    """
    check_scopes((criterion,), (scope,))
    statistics = None
    if windows is not None:
        statistics = capture(model, graph, windows, needs=set(CRITERIA[criterion].needs), kinds=kinds)
    scores = score(
        model, graph, [criterion], statistics, seed=seed, kinds=kinds, options=options, scopes=(scope,)
    )
    return scores[ranked_by(criterion, scope)]


def score_structures(
    model: nn.Module,
    graph: Graph,
    group: Group,
    name: str,
    statistics: Statistics | None,
    *,
    seed: int,
    options: Mapping[str, Any] | None = None,
) -> list[tuple[Member, np.ndarray[Any, Any]]]:
    """Score a group's units once per structure, each time as if that structure were all of them.

    Args:
        name: a criterion that reads weights or gradients.
        statistics, seed, options: as in `score`.

    Returns:
        Each member with one score per unit, higher = keep, (units,), float32.
    """
    entry = CRITERIA[name]
    scores = []
    with torch.no_grad():
        parts = zip(slices(graph, group), _parts(model, graph, group, statistics), strict=True)
        for part, alone in parts:
            rng = np.random.default_rng([seed, zlib.crc32(repr((group.id, part.key)).encode())])
            view = GroupView(group.units, group.kind, [alone], rng, entry.settings(options or {}))
            scores.append((part.member, _per_unit(_scored(model, entry, view))))
    return scores


def check_alone(name: str) -> None:
    """Raises SpecError if a criterion cannot score a matrix by itself."""
    if set(CRITERIA[name].needs) <= GRADIENTS:
        return
    raise SpecError(
        f"without_dependency scores every matrix by itself, and {name} looks at what flows between matrices; "
        "take one that reads weights or gradients: taylor_first, l2, l1 or random."
    )


def _scored(model: nn.Module, entry: Entry[Criterion], view: GroupView) -> Tensor:
    """What a criterion says, (units,) or (units, channels). Raises DataError if it is not finite."""
    said = entry.component(view)
    fits = len(said) == view.units and said.dim() == (2 if entry.channels else 1)
    assert fits, f"{entry.name} gave {tuple(said.shape)} for {view.units} units"
    if not bool(torch.isfinite(said.float()).all()):
        check_weights(model)
        raise DataError(f"{entry.name} gave a score that is not finite; run with --dtype float32.")
    return said


def _per_unit(said: Tensor) -> np.ndarray[Any, Any]:
    """Scores of units, or of their channels added up, (units,), float32."""
    return _array(said.sum(dim=1) if said.dim() == 2 else said)


def _array(values: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = values.float().cpu().numpy()
    return array


def _require(
    statistics: Statistics | None, needs: set[str], kinds: Sequence[str], names: Sequence[str]
) -> None:
    """Raises DataError where criteria need statistics that were not captured."""
    captured = statistics.captured if statistics else set()
    covered = set(statistics.kinds) if statistics else set()
    if not needs or (needs <= captured and set(kinds) <= covered):
        return
    raise DataError(
        f"{', '.join(names)} need {', '.join(sorted(needs))} of {', '.join(kinds)}; captured were "
        f"{', '.join(sorted(captured)) or 'none'} of {', '.join(sorted(covered)) or 'nothing'}. "
        "Capture them first, with these kinds."
    )


def check_readable(model: nn.Module, graph: Graph, names: Sequence[str], kinds: Sequence[str]) -> None:
    """Check that the statistics these criteria read can be captured for all groups of these kinds.

    Raises:
        DataError: units are read or made inside a module's own forward, where nothing can be watched;
            names the criterion, the kind and the parameter.
    """
    for group in (group for group in graph.of_kind(*kinds) if group.prunable):
        for name in names:
            needs, members = set(CRITERIA[name].needs), group.members
            unread = [m for m in members if m.role == "layer2" and not reader_of(model, graph, m)]
            unmade = [m for m in members if m.role == "layer1" and not maker_of(model, m)]
            blind = unread if needs & set(INPUTS) else []
            blind = blind or (unmade if needs & set(OUTPUTS) and group.kind == "ffn_channel" else [])
            if blind:
                raise DataError(
                    f"{name} cannot score {group.kind} {group.id}: {blind[0].parameter} is multiplied inside "
                    "its module's own forward, where its inputs cannot be watched; take a criterion that "
                    "reads weights or gradients, such as taylor_first, or leave this kind out with --kinds."
                )


def _parts(model: nn.Module, graph: Graph, group: Group, statistics: Statistics | None) -> list[Part]:
    parts = []
    for number, part in enumerate(slices(graph, group)):
        device = device_of(model, model.get_parameter(part.member.parameter))
        captured = {} if statistics is None else _captured(statistics, group, number, part)
        placed = {name: values.to(device) for name, values in captured.items()}
        read = partial(part.weight, model)
        share, keyed = part.share.to(device), part.keyed.to(device)
        parts.append(Part(part.member.role, read, placed, share, keyed))
    return parts


def _captured(statistics: Statistics, group: Group, number: int, part: Slice) -> dict[str, Tensor]:
    captured = {
        name: part.of(by_key[part.key]) for name, by_key in statistics.values.items() if part.key in by_key
    }
    if group.id in statistics.structures:
        captured[COARSE] = statistics.structures[group.id][number]
    return captured


def _heads(graph: Graph, group: Group, statistics: Statistics | None) -> tuple[Tensor, Tensor] | None:
    """The layer's divergences, and which query heads each unit has: heads lie in order in what reads them."""
    attention = next((a for a in graph.attentions if a.layer == group.layer), None)
    member = next((m for m in group.members if m.role == "layer2"), None)
    if group.kind not in ("query_head", "kv_group") or not attention or not member or not statistics:
        return None
    rows = np.sort(member.index(), axis=1)[:, :: attention.value_dim]  # (units, heads of a unit)
    return statistics.divergence[attention.layer], torch.from_numpy(rows // attention.value_dim)
