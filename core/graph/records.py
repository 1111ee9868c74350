"""What the dependency graph says, as plain records: read and written as JSON, without torch.

A *group* holds all parameter slices that are coupled through the same units. A *member* is one
parameter's part in it: along `dim`, unit `u` owns `indices(u)`. Index sets are kept as runs of an
arithmetic progression, so a 70B model's groups stay small on disk.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

Kind = Literal[
    "ffn_channel", "query_head", "kv_group", "residual_channel", "head_dim_pair", "expert",
    "attention_block", "ffn_block", "layer",
]  # fmt: skip
#: Kinds whose groups are one unit each, with all its parameters: what the residual stream can do without.
BLOCKS = ("attention_block", "ffn_block", "layer")
Role = Literal["layer1", "layer2", "vector", "embedding", "router"]
#: Kinds a user may prune (the others are shown, not offered) -> their type in LLM-Pruner, Section 3.1:
#: A is FFN, B attention, C residual channel.
TYPES: dict[str, str] = {"ffn_channel": "A", "query_head": "B", "kv_group": "B", "residual_channel": "C"}
Gives = Literal["zeros", "stream", "same"]
Runs = tuple[tuple[int, int, int], ...]


def to_runs(values: NDArray[np.int64]) -> Runs:
    """Write a flat index list as `(start, count, step)` runs, in order."""
    runs: list[tuple[int, int, int]] = []
    i, n = 0, len(values)
    while i < n:
        step = int(values[i + 1] - values[i]) if i + 1 < n else 1
        j = i + 1
        while j < n and values[j] - values[j - 1] == step:
            j += 1
        runs.append((int(values[i]), j - i, step))
        i = j
    return tuple(runs)


def from_runs(runs: Runs) -> NDArray[np.int64]:
    """The flat index list behind `runs`."""
    if not runs:
        return np.empty(0, dtype=np.int64)
    return np.concatenate([start + step * np.arange(count, dtype=np.int64) for start, count, step in runs])


@dataclass(frozen=True)
class Member:
    """One parameter's part in a group.

    Attributes:
        parameter: its name in `model.named_parameters()`; a tied parameter stands under its first name.
        dim: the dimension along which units are laid out.
        role: `layer1` produces the units (their rows go), `layer2` consumes them (their columns go),
            `vector` is a bias or norm weight that goes along; `embedding` and `router` are what they say.
        width: how many indices one unit owns, e.g. head_dim.
        runs: units * width indices as runs; those of unit 0, then of unit 1, … — or, where `striped`, the
            first index of every unit, then the second of every unit, …, which is shorter for fused matrices.
        at: for a stack of experts, the slice of dimension 0 that is meant; None = the whole parameter.
    """

    parameter: str
    dim: int
    role: Role
    width: int
    runs: Runs
    at: int | None = None
    striped: bool = False

    def index(self) -> NDArray[np.int64]:
        """All indices, (units, width)."""
        flat = from_runs(self.runs)
        return flat.reshape(self.width, -1).T if self.striped else flat.reshape(-1, self.width)

    @classmethod
    def of(cls, parameter: str, dim: int, role: Role, index: NDArray[np.int64]) -> Member:
        """A member from all its indices, (units, width), written down the shorter way."""
        plain, striped = to_runs(index.ravel()), to_runs(index.T.ravel())
        shorter = len(striped) < len(plain)
        return cls(parameter, dim, role, index.shape[1], striped if shorter else plain, striped=shorter)


@dataclass(frozen=True)
class Norm:
    """A normalisation whose statistics run across the units of a group, so it must be rescaled with them.

    Attributes:
        module: the module that computes it.
        statistic: `rms` (root mean square: weight and eps are rescaled) or `layer` (mean and variance: they
            must still be taken over the dense width).
    """

    module: str
    statistic: Literal["rms", "layer"]


@dataclass(frozen=True)
class Bypass:
    """A module of a block, and what stands in its place once the block is gone.

    Attributes:
        module: its name.
        gives: `zeros`, which are added to the residual stream; `stream`, which it adds to by itself and then
            only hands on; or `same`: what it is handed, and nothing reads.
        argument: position or name of what it is handed: the zeros have its shape.
        several: 0 where the module gives a tensor, else how many things, the first of which counts.
        cache: the number under which its keys and values are cached, None where it has none.
    """

    module: str
    gives: Gives
    argument: int | str
    several: int = 0
    cache: int | None = None


@dataclass(frozen=True)
class Group:
    """Coupled parameter slices of one kind in one layer; the residual group spans all: `layer` is None.

    Attributes:
        id: unique and stable, e.g. `L04.ffn_channel`, `residual_channel`.
        units: how many units there are.
        prunable: False where removing a unit would not be sound; `reason` then says why.
        parent: for `query_head` under grouped-query attention, the id of the `kv_group` group whose
            key and value slices are shared; a key-value unit goes with the last of its query heads.
        parent_unit: for each unit, the parent's unit it shares, (units,).
        norms: normalisations that average over the units.
        constants: modules in which fixed numbers per unit enter, e.g. ALiBi slopes; survivors keep theirs.
        bypass: of a block, the modules that go; reads: the ids of blocks of its layer whose outputs the
            stream has in it already where the block reads it.
    """

    id: str
    kind: Kind
    layer: int | None
    units: int
    members: tuple[Member, ...]
    prunable: bool = True
    reason: str | None = None
    parent: str | None = None
    parent_unit: tuple[int, ...] = ()
    norms: tuple[Norm, ...] = ()
    constants: tuple[str, ...] = ()
    bypass: tuple[Bypass, ...] = ()
    reads: tuple[str, ...] = ()

    @property
    def plain_norms(self) -> list[str]:
        """Modules that average over the units and have no weight of their own, one channel per unit."""
        owners = {member.parameter.rpartition(".")[0] for member in self.members}
        return [norm.module for norm in self.norms if norm.module not in owners]

    @property
    def type(self) -> str:
        """LLM-Pruner's letter, or an empty string."""
        return TYPES.get(self.kind, "")


@dataclass(frozen=True)
class Parameter:
    """Shape and use of one parameter.

    Attributes:
        shape: as in the model.
        macs_per_token: multiply-accumulates each element of it costs per token; 1 for a matrix a
            linear layer multiplies with, 0 for one that is looked up or added, k / experts for a
            routed expert.
        module: the class of the module that owns it, for people to read.
        layer: the decoder layer it lies in, or None.
    """

    shape: tuple[int, ...]
    macs_per_token: float
    module: str
    layer: int | None


@dataclass(frozen=True)
class Edge:
    """Data flows from one parameter's output dimension to another's input through `ops`.

    `source` and `target` are parameter names; `ops` are the ATen operations on the way, in order, and
    `steps` their numbers: where two edges have a number in common, their data met.
    """

    source: str
    target: str
    ops: tuple[str, ...]
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class Attention:
    """What one attention block looks like: which module, how many heads, how wide.

    Attributes:
        module: the name of the module whose forward holds the softmax.
        heads: query heads; kv_heads: key-value heads; head_dim: channels of one key; value_dim: of one value.
        queries, values: the matrices that make them, a fused one in both; empty in graphs of release 0.1.
    """

    layer: int
    module: str
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    queries: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Graph:
    """All groups of a model, as discovered.

    Attributes:
        layer_modules: the names of the decoder layers in order, e.g. `model.layers.0`.
        not_prunable: `{"kind", "layer", "reason"}` for every coupling that could not be followed.
    """

    model: str
    family: str
    config_only: bool
    seconds: float
    parameters: dict[str, Parameter]
    groups: tuple[Group, ...]
    attentions: tuple[Attention, ...]
    layer_modules: tuple[str, ...]
    edges: tuple[Edge, ...] = ()
    not_prunable: tuple[dict[str, Any], ...] = ()
    tied: dict[str, str] = field(default_factory=dict)

    def group(self, group_id: str) -> Group:
        """The group with this id. Raises KeyError."""
        return self.by_id[group_id]

    @cached_property
    def by_id(self) -> dict[str, Group]:
        """Groups by id."""
        return {group.id: group for group in self.groups}

    def of_kind(self, *kinds: str) -> list[Group]:
        """Groups of these kinds, in order of layer."""
        return [group for group in self.groups if group.kind in kinds]

    def unseen(self, *kinds: str) -> bool:
        """Whether units of these kinds are read inside a module's own forward, as in a stack of experts."""
        groups = [group for group in self.of_kind(*kinds) if group.prunable]
        readers = (member for group in groups for member in group.members if member.role == "layer2")
        return any(not member.parameter.endswith(".weight") for member in readers)

    def to_json(self) -> str:
        """One JSON document, as in `groups.json`."""
        return json.dumps(self, default=_fields)

    @classmethod
    def from_json(cls, text: str) -> Graph:
        """Read what `to_json` wrote. Raises ValueError on one that is damaged or contradicts itself."""
        graph = _ADAPTER.validate_json(text, strict=True, extra="forbid")
        for group in graph.groups:
            _check(graph, group)
        return graph


_ADAPTER = TypeAdapter(Graph)


def _check(graph: Graph, group: Group) -> None:
    """Raises ValueError if a group is about what the graph does not have."""
    strange = [member.parameter for member in group.members if member.parameter not in graph.parameters]
    if strange:
        raise ValueError(f"{group.id} is about {strange[0]}, which is no parameter")
    if group.parent is None:
        return
    parent = graph.by_id.get(group.parent)
    if parent is None or len(group.parent_unit) != group.units:
        raise ValueError(f"{group.id} needs a group {group.parent}, and one of its units for each of its own")


def _fields(record: Any) -> dict[str, Any]:
    """A record's own fields, without what it caches."""
    return {own.name: getattr(record, own.name) for own in fields(record)}
