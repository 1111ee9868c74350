"""A pruning plan: which units go, and which indices of which parameters that means.

The contract between every part. `core.plan.cost` counts what a plan saves.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from core.errors import NotPrunableError
from core.graph.records import Graph
from core.plan.blocks import without_blocks
from core.spec.past import FORMAT, today

#: parameter -> dimension -> indices that go, sorted and unique; (experts, n) in a stack of experts.
Cuts = dict[str, dict[int, NDArray[np.int64]]]
#: Indices that go along one dimension, by the expert whose slice is meant (None: the whole parameter).
Parts = dict[int | None, NDArray[np.int64]]
#: At how many bits per number the key-value cache is counted, whatever the precision the model runs in now:
#: so plans are comparable, and 16 bits is what most models are served in.
KV_BITS = 16


@dataclass(frozen=True)
class Cost:
    """Size of a model under a plan.

    Attributes:
        params: parameters left.
        macs_per_token: multiply-accumulates of all matrices for one token, attention products not included.
        kv_bytes_per_token: key-value cache, at `KV_BITS` bits per number.
    """

    params: int
    macs_per_token: int
    kv_bytes_per_token: int


@dataclass(frozen=True)
class PruningPlan:
    """Units that go, per group.

    Attributes:
        removed: group id -> sorted units that go.
        method, target, scope, kinds, layers: how it was asked for.
        biases: parameters the cut modules get that the dense model has not, to hold what reconstruction
            fitted; they are part of what the model costs.
        before, after: what the model costs, filled in by `with_costs`.
        params_in_scope: parameters in the prunable groups in scope: what `sparsity` is a fraction of.
        format: in which words the method is told, see `core.spec.past`; release 0.1 does not say it.
    """

    removed: dict[str, tuple[int, ...]]
    model: str = ""
    method: str = ""
    target: float = 0.0
    scope: str = "local"
    kinds: tuple[str, ...] = ()
    layers: str | None = None
    params_in_scope: int = 0
    biases: tuple[str, ...] = ()
    before: Cost | None = None
    after: Cost | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)
    format: int = field(default=1, compare=False)

    @property
    def sparsity(self) -> float:
        """Removed parameters as a fraction of `params_in_scope`."""
        return self._removed_params() / self.params_in_scope if self.params_in_scope else 0.0

    @property
    def sparsity_total(self) -> float:
        """Removed parameters as a fraction of all parameters."""
        return self._removed_params() / self.before.params if self.before else 0.0

    def _removed_params(self) -> int:
        return self.before.params - self.after.params if self.before and self.after else 0

    def to_json(self) -> str:
        """One JSON document, as in `plan.json`; the shares are written too, for other readers."""
        shares = {"sparsity": self.sparsity, "sparsity_total": self.sparsity_total}
        return json.dumps({**asdict(self), "format": FORMAT, **shares})

    @classmethod
    def from_json(cls, text: str) -> PruningPlan:
        """Read what `to_json` wrote, in today's words.

        Raises:
            ValueError, AttributeError: the document is damaged.
        """
        raw: dict[str, Any] = json.loads(text)
        raw.pop("sparsity", None)
        raw.pop("sparsity_total", None)
        plan = _ADAPTER.validate_json(json.dumps(raw), strict=True, extra="forbid")
        return replace(plan, method=today("prune.method", plan.method, plan.format), format=FORMAT)


_ADAPTER = TypeAdapter(PruningPlan)


def check_plan(graph: Graph, removed: dict[str, tuple[int, ...]]) -> None:
    """Raises NotPrunableError if a unit does not exist or cannot go, or if nothing of a group would stay."""
    groups = graph.by_id
    for group_id, units in removed.items():
        if group_id not in groups:
            raise NotPrunableError(
                f"This model has no group '{group_id}'; see `python -m core groups MODEL`."
            )
        group = groups[group_id]
        if units and not group.prunable:
            raise NotPrunableError(f"{group_id} cannot be pruned: {group.reason}.")
        if units and (min(units) < 0 or max(units) >= group.units or len(set(units)) != len(units)):
            got = f"{[*units[:8]]}"[:-1] + (f", … and {len(units) - 8:,} more]" if len(units) > 8 else "]")
            raise NotPrunableError(f"{group_id} has units 0 to {group.units - 1}, each once; got {got}.")
    for group_id, units in implied(graph, removed).items():
        if len(units) >= groups[group_id].units:
            raise NotPrunableError(
                f"The plan removes all {len(units)} units of {group_id}; at least one must stay."
            )


def implied(graph: Graph, removed: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Add what follows: a key-value unit goes with its last query head, and all its heads go with it.

    Whole blocks are no part of it, nor are units inside them.
    """
    graph, removed = without_blocks(graph, removed)
    full = {group: set(units) for group, units in removed.items() if units}
    for group in graph.groups:
        if group.parent is None:
            continue
        parents = np.asarray(group.parent_unit)
        gone = full.get(group.parent, set())
        heads = full.get(group.id, set()) | {int(u) for u in np.flatnonzero(np.isin(parents, list(gone)))}
        if not heads:
            continue
        full[group.id] = heads
        emptied = {int(p) for p in np.unique(parents) if set(np.flatnonzero(parents == p).tolist()) <= heads}
        if gone | emptied:
            full[group.parent] = gone | emptied
    return {group: tuple(sorted(units)) for group, units in full.items()}


def cuts(graph: Graph, removed: dict[str, tuple[int, ...]]) -> Cuts:
    """The indices that go along every dimension of every parameter that is not in a block that goes."""
    return {
        name: {dim: _joined(parts, graph.parameters[name].shape[0]) for dim, parts in dims.items()}
        for name, dims in indices_gone(graph, removed).items()
    }


def indices_gone(graph: Graph, removed: dict[str, tuple[int, ...]]) -> dict[str, dict[int, Parts]]:
    """As `cuts`, with the experts of a stack told apart."""
    graph, removed = without_blocks(graph, removed)
    gone: dict[str, dict[int, Parts]] = {}
    groups = graph.by_id
    for group_id, units in implied(graph, removed).items():
        for member in groups[group_id].members:
            parts = gone.setdefault(member.parameter, {}).setdefault(member.dim, {})
            rows = member.index()[list(units)].ravel()
            before = parts.get(member.at)
            parts[member.at] = np.unique(rows) if before is None else np.union1d(before, rows)
    return gone


def _joined(parts: Parts, experts: int) -> NDArray[np.int64]:
    """One sorted row of indices, or one row per expert of a stack, (experts, n)."""
    if None in parts:
        return parts[None]
    counts = {len(parts.get(expert, ())) for expert in range(experts)}
    if len(counts) > 1:
        raise NotPrunableError(
            "The experts of one layer are one stack of matrices, so each must lose the same number of "
            f"channels; the plan takes between {min(counts)} and {max(counts)} slices."
        )
    return np.stack([parts[expert] for expert in range(experts)])


def missing_biases(graph: Graph, removed: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """The biases that matrices which read what goes lack, by the name they would have.

    Only linear layers of their own can get one; a stack of experts cannot.
    """
    losing = {group for group, units in implied(graph, removed).items() if units}
    return tuple(name for name, place in bias_places(graph).items() if place.group in losing)


@dataclass(frozen=True)
class BiasPlace:
    group: str
    weight: str
    dim: int


def bias_places(graph: Graph) -> dict[str, BiasPlace]:
    """Where a bias can be added: its name -> the group read there, the matrix, and its output dimension."""
    places: dict[str, BiasPlace] = {}
    for group in graph.of_kind("kv_group", "query_head", "ffn_channel"):
        for member in group.members:
            path, _, attribute = member.parameter.rpartition(".")
            owner = graph.parameters[member.parameter].module
            linear = attribute == "weight" and owner.endswith(("Linear", "Conv1D"))
            if member.role == "layer2" and linear and f"{path}.bias" not in graph.parameters:
                places[f"{path}.bias"] = BiasPlace(group.id, member.parameter, 1 - member.dim)
    return places


def bias_cuts(graph: Graph, removed: dict[str, tuple[int, ...]], biases: Sequence[str]) -> Cuts:
    """What goes of added biases: the outputs that their matrices lose."""
    if not biases:
        return {}
    gone, places = cuts(graph, removed), bias_places(graph)
    lost = {name: gone.get(places[name].weight, {}).get(places[name].dim) for name in biases}
    return {name: {0: rows} for name, rows in lost.items() if rows is not None}


def bias_sizes(graph: Graph, biases: Sequence[str]) -> dict[str, int]:
    """How long each added bias is before anything is cut."""
    places = bias_places(graph)
    return {name: graph.parameters[places[name].weight].shape[places[name].dim] for name in biases}
