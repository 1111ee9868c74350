"""Plans that leave all layers alike, as every server takes them: their groups lose the same number together.

A step of query heads takes one of every key-value group of every layer, the least of each; a step of channels
takes one of every layer. So targets are met less finely than by plans that are ragged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.errors import NotPrunableError
from core.graph.records import Group
from core.plan.ranking import Track

HEADS, WIDTHS = ("query_head", "kv_group"), ("ffn_channel",)


def alike(heads: bool, everything: bool) -> tuple[str, ...]:
    """The kinds whose groups lose alike."""
    return (*HEADS, *(WIDTHS if everything else ())) if heads or everything else ()


def in_turns(group: Group, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same units so that all parents lose one before any loses a second, (units,)."""
    if group.parent is None:
        return order
    parents = np.asarray(group.parent_unit)[order]
    earlier = np.tril(parents[:, None] == parents[None, :], k=-1)  # (units, units)
    return order[np.argsort(earlier.sum(axis=1), kind="stable")]


def joined(tracks: Sequence[Track], kinds: Sequence[str]) -> list[Track]:
    """One track for all groups of each of these kinds; the others stay as they are.

    Raises:
        NotPrunableError: groups of a kind differ in size, so that they cannot end alike.
    """
    together = [[track for track in tracks if track.kind == kind] for kind in kinds]
    return [track for track in tracks if track.kind not in kinds] + [_one(part) for part in together if part]


def _one(tracks: Sequence[Track]) -> Track:
    groups = tuple(group for track in tracks for group in track.groups)
    first = tracks[0]
    uneven = next((group for group in groups if len(set(np.bincount(group.parent_unit or [0]))) > 1), None)
    if uneven is not None:
        raise NotPrunableError(
            f"Layers cannot end alike: the key-value heads that {uneven.id} shares are read by different "
            "numbers of query heads. Leave uniform_heads and uniform out."
        )
    if any(not np.array_equal(track.counts, first.counts) for track in tracks):
        sizes = sorted({group.units for group in groups})
        raise NotPrunableError(
            f"Layers cannot end alike: groups of {first.kind} have {sizes} units. Leave uniform out."
        )
    turns = np.mean([track.turns for track in tracks], axis=0)
    even = np.mean([track.even for track in tracks], axis=0)
    parents = len(set(groups[0].parent_unit)) or 1
    steps = np.arange(0, len(first.counts), parents)
    starts = steps[:-1]
    return Track(groups, first.counts[steps], _means(turns, starts, parents), _means(even, starts, parents))


def _means(values: NDArray[np.float64], starts: NDArray[np.int64], width: int) -> NDArray[np.float64]:
    """The mean of each run of so many values, (starts,)."""
    return np.array([values[start : start + width].mean() for start in starts], dtype=np.float64)
