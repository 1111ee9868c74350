"""Where the gates start: all alike, or in the order that a criterion gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import DataError
from core.graph.records import Group
from core.nuteprune.gates import BOUND
from core.results.scores import AL_AM
from core.spec.nuteprune import Settings

#: A unit this many standard deviations off the mean starts as far off as one can.
_FAR = 2.0


def starting_point(
    groups: Sequence[Group], settings: Settings, scores: Mapping[str, NDArray[np.floating]] | None
) -> float | dict[str, Tensor]:
    """log alpha of every unit at the start, one for all without scores, or group id -> (units,).

    Raises:
        DataError: a group has no finite scores.
    """
    if scores is None:
        return settings.start
    log_alpha: dict[str, Tensor] = {}
    compared = in_one_list if settings.start_scope == AL_AM else standardised
    for group, off in compared(groups, scores).items():
        start = settings.start + settings.start_spread * np.clip(off, -_FAR, _FAR)
        log_alpha[group] = torch.from_numpy(start).clamp(-BOUND, BOUND).float()
    return log_alpha


def standardised(
    groups: Sequence[Group], scores: Mapping[str, NDArray[np.floating]]
) -> dict[str, NDArray[np.float64]]:
    """Scores of all kinds on one scale, group id -> (units,).

    Those of a kind are compared over all layers: by how many standard deviations the logarithm of a score is
    off the mean of its kind.

    Raises:
        DataError: a group has no finite scores.
    """
    scaled: dict[str, NDArray[np.float64]] = {}
    for kind in dict.fromkeys(group.kind for group in groups):
        members = [group for group in groups if group.kind == kind]
        logs = [np.log(np.maximum(_scores(group, scores), 1e-30)) for group in members]
        every = np.concatenate(logs)
        for group, log in zip(members, logs, strict=True):
            scaled[group.id] = (log - every.mean()) / (every.std() or 1.0)
    return scaled


def in_one_list(
    groups: Sequence[Group], scores: Mapping[str, NDArray[np.floating]]
) -> dict[str, NDArray[np.float64]]:
    """Where units of all kinds stand in one list of their scores, group id -> (units,).

    It is the standard normal deviate of a unit's place, since scores of AL-AM lie close together below and
    far apart above; equal ones share their place.

    Raises:
        DataError: a group has no finite scores.
    """
    every = np.concatenate([_scores(group, scores) for group in groups])
    _, number, counts = np.unique(every, return_inverse=True, return_counts=True)
    places = ((counts.cumsum() - counts / 2) / len(every))[number]
    off = torch.special.ndtri(torch.from_numpy(places)).numpy()
    parts = np.split(off, np.cumsum([group.units for group in groups])[:-1])
    return {group.id: part for group, part in zip(groups, parts, strict=True)}


def _scores(group: Group, scores: Mapping[str, NDArray[np.floating]]) -> NDArray[np.float64]:
    values = np.asarray(scores.get(group.id, ()), dtype=np.float64)
    if values.shape != (group.units,) or not np.isfinite(values).all():
        raise DataError(
            f"{group.id} needs {group.units} finite scores to start from, got "
            f"{int(np.isfinite(values).sum())}; name another criterion in start_from, or none."
        )
    return values
