"""How long a model takes on a machine, predicted from how much faster each kind of unit made it there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from core.errors import NotPrunableError
from core.graph.records import Graph, Group
from core.plan.blocks import without_blocks
from core.plan.cost import params_in
from core.plan.meter import Counts

#: Group -> its kind, its share of what that kind can save, and its units.
Weights = dict[str, tuple[str, float, int]]
#: Kinds whose units save time of their own. Hidden channels shrink everything at once, and are not timed.
TIMED_KINDS = ("ffn_channel", "query_head", "kv_group")


@dataclass(frozen=True)
class Machine:
    """What times depend on beside the model: they hold on no other."""

    host: str
    device: str
    threads: int
    dtype: str
    attention: str
    torch: str

    def __str__(self) -> str:
        threads = f" with {self.threads} thread{'s' * (self.threads != 1)}" if self.threads else ""
        return f"{self.device}{threads} of {self.host}, {self.dtype}, {self.attention}, torch {self.torch}"


@dataclass(frozen=True)
class Timings:
    """The times of one model on one machine.

    Attributes:
        model: `fingerprint` of its graph; reads: what was timed, as in `core.spec.budget.Reads`.
        multiple: of which widths were kept; machine: where; at: when, in seconds since 1970.
        dense_ms: the model as it is, the median; spread_ms: from its lower to its upper quartile.
        saved_ms: kind -> (share of every group's units that are gone, how much faster that is), rising.
        blocks_ms: kind of block -> how much faster the model would be without all of them.
    """

    model: str
    reads: str
    multiple: int
    machine: Machine
    at: float
    dense_ms: float
    spread_ms: float
    saved_ms: dict[str, tuple[tuple[float, float], ...]]
    blocks_ms: dict[str, float]

    @cached_property
    def _points(self) -> dict[str, tuple[list[float], list[float]]]:
        return {
            kind: ([0.0, *(share for share, _ in points)], [0.0, *(saved for _, saved in points)])
            for kind, points in self.saved_ms.items()
        }

    def saved(self, weights: Weights, counts: Mapping[str, int]) -> float:
        """How many milliseconds less the model takes when so many units of each group are gone.

        Args:
            weights: of `weights`, of the model that is left once whole blocks are gone.
        """
        total = 0.0
        for group, gone in counts.items():
            if gone and group in weights:
                kind, weight, units = weights[group]
                total += weight * float(np.interp(gone / units, *self._points[kind]))
        return total

    def weights(self, graph: Graph) -> Weights:
        """What each group of the model as it is weighs, by its parameters."""
        result: Weights = {}
        for kind in self.saved_ms:
            sizes = {group.id: params_in(graph, [group]) for group in graph.of_kind(kind) if group.prunable}
            whole = sum(sizes.values())
            result |= {name: (kind, size / whole, graph.group(name).units) for name, size in sizes.items()}
        return result

    def predicted(self, graph: Graph, removed: Mapping[str, Sequence[int]]) -> float:
        """Milliseconds that the model takes once these units and blocks are gone."""
        left, units = without_blocks(graph, removed)
        faster = self.saved(self.weights(graph), {name: len(gone) for name, gone in units.items()})
        stays = left.by_id
        for kind, whole in self.blocks_ms.items():
            sizes = {block.id: size_of(graph, block) for block in graph.of_kind(kind)}
            gone = sum(size for name, size in sizes.items() if name not in stays)
            faster += whole * gone / max(1, sum(sizes.values()))
        return self.dense_ms - faster

    def of_counts(self, graph: Graph) -> Callable[[Counts], float]:
        """How much faster the model is with so many units of every group gone, fast enough to search with."""
        weights = self.weights(graph)
        return lambda counts: self.saved(weights, counts)


def size_of(graph: Graph, block: Group) -> int:
    """Parameters of a block."""
    names = {member.parameter for member in block.members}
    return sum(prod(graph.parameters[name].shape) for name in names)


def fingerprint(graph: Graph) -> str:
    """A short name of the shapes of a model, whatever its weights and its name."""
    shapes = sorted((name, parameter.shape) for name, parameter in graph.parameters.items())
    written = json.dumps([graph.family, shapes])
    return hashlib.sha256(written.encode()).hexdigest()[:16]


def require_timed(timings: Timings | None, target: str) -> Timings:
    """The times that a budget of time needs. Raises NotPrunableError where there are none."""
    if timings is None:
        raise NotPrunableError(
            f"Target {target} needs times of this model on this machine, and there are none yet: a run takes "
            "them first."
        )
    return timings
