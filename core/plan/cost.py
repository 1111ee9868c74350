"""What a plan saves, counted: parameters, multiply-accumulates and bytes of key-value cache.

Costs are counted, not estimated: a plan becomes a set of indices that stay along every dimension of
every parameter, and what is left of a parameter is the product of those. So a row and a column that
cross are never counted twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from core.graph.records import Attention, Graph, Group, Parameter
from core.plan.blocks import without_blocks
from core.plan.records import (
    KV_BITS,
    Cost,
    Parts,
    PruningPlan,
    bias_cuts,
    bias_sizes,
    check_plan,
    implied,
    indices_gone,
)
from core.spec.budget import PACKINGS


def cost(graph: Graph, removed: dict[str, tuple[int, ...]], biases: Sequence[str] = ()) -> Cost:
    """Count what the model costs once these units are gone and these biases are added."""
    graph, removed = without_blocks(graph, removed)
    params = macs = 0.0
    for name, left in _left(graph, removed):
        params += prod(left)
        macs += prod(left) * graph.parameters[name].macs_per_token
    params += sum(_bias_lengths(graph, removed, biases))
    return Cost(round(params), round(macs), _kv_numbers(graph, removed) * KV_BITS // 8)


def stored_bytes(
    graph: Graph, removed: dict[str, tuple[int, ...]], packing: str, biases: Sequence[str] = ()
) -> int:
    """Bytes that all parameters take in a packing, once these units are gone and these biases are added."""
    return stored_sizes(graph, removed, (packing,), biases)[packing]


def stored_sizes(
    graph: Graph, removed: dict[str, tuple[int, ...]], packings: Sequence[str], biases: Sequence[str] = ()
) -> dict[str, int]:
    """Packing -> `stored_bytes` in it; what is left is counted once for all."""
    graph, removed = without_blocks(graph, removed)
    matrices = [(graph.parameters[name], left) for name, left in _left(graph, removed)]
    added = _bias_lengths(graph, removed, biases)
    return {
        packing: round(
            sum(bytes_of(parameter, left, packing) for parameter, left in matrices)
            + sum(vector_bytes(size, packing) for size in added)
        )
        for packing in packings
    }


def bytes_of(parameter: Parameter, shape: Sequence[float], packing: str) -> float:
    """Bytes of a parameter of this shape: where a packing has blocks, rows that are none stay at 16 bits."""
    packed = PACKINGS[packing]
    if len(shape) < 2:
        return vector_bytes(prod(shape), packing)
    row = shape[-2] if parameter.module.endswith("Conv1D") else shape[-1]
    return prod(shape) * (16 if row % packed.block else packed.bits) / 8


def vector_bytes(size: float, packing: str) -> float:
    """Bytes of a bias or of the weights of a norm, which a packing with blocks leaves at 32 bits."""
    packed = PACKINGS[packing]
    return size * (packed.bits if packed.block == 1 else 32) / 8


def _left(graph: Graph, removed: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, list[float]]]:
    """What is left of the shape of every parameter."""
    gone = indices_gone(graph, removed)
    for name, parameter in graph.parameters.items():
        dims, shape = gone.get(name, {}), parameter.shape
        yield name, [size - _share(dims.get(dim, {}), shape[0]) for dim, size in enumerate(shape)]


def _bias_lengths(graph: Graph, removed: dict[str, tuple[int, ...]], biases: Sequence[str]) -> list[int]:
    """How long each added bias is once these units are gone."""
    lost = {name: len(outputs[0]) for name, outputs in bias_cuts(graph, removed, biases).items()}
    return [size - lost.get(name, 0) for name, size in bias_sizes(graph, biases).items()]


def saving(graph: Graph, removed: dict[str, tuple[int, ...]]) -> Cost:
    """Count what removing these units together saves; rows and columns that cross count once."""
    dense, left = cost(graph, {}), cost(graph, removed)
    return Cost(
        dense.params - left.params,
        dense.macs_per_token - left.macs_per_token,
        dense.kv_bytes_per_token - left.kv_bytes_per_token,
    )


def _share(parts: Parts, experts: int) -> float:
    """How many indices go along a dimension, the mean over the experts of a stack."""
    return sum(len(rows) / (1 if at is None else experts) for at, rows in parts.items())


def _kv_numbers(graph: Graph, removed: dict[str, tuple[int, ...]]) -> int:
    """Numbers cached per token: keys and values of every key-value head that stays."""
    full, total = implied(graph, removed), 0
    for attention in graph.attentions:
        gone: set[int] = set()
        for group in graph.groups:
            if holds_keys(group, attention):
                gone |= set(full.get(group.id, ()))
        total += (attention.kv_heads - len(gone)) * (attention.head_dim + attention.value_dim)
    return total


def holds_keys(group: Group, attention: Attention) -> bool:
    """Whether the units of a group are the key-value heads of an attention."""
    own = group.kind == "kv_group" or (group.kind == "query_head" and group.parent is None)
    return own and group.layer == attention.layer and group.units == attention.kv_heads


def params_in(graph: Graph, groups: list[Group]) -> int:
    """Count the parameters that belong to at least one unit of these groups or of their parents."""
    by_id = graph.by_id
    counted = {group.id: group for group in groups}
    counted |= {group.parent: by_id[group.parent] for group in groups if group.parent}
    touched: dict[str, dict[int, NDArray[np.bool_]]] = {}
    for group in counted.values():
        for member in group.members:
            size = graph.parameters[member.parameter].shape[member.dim]
            mask = touched.setdefault(member.parameter, {}).setdefault(
                member.dim, np.zeros(size, dtype=np.bool_)
            )
            mask[member.index().ravel()] = True
    total = 0
    for name, dims in touched.items():
        shape = graph.parameters[name].shape
        untouched = prod(
            size - int(dims[dim].sum()) if dim in dims else size for dim, size in enumerate(shape)
        )
        total += prod(shape) - untouched
    return total


def with_costs(graph: Graph, plan: PruningPlan, groups: list[Group]) -> PruningPlan:
    """Return the same plan with its costs counted against `groups`, the prunable groups in scope."""
    check_plan(graph, plan.removed)
    return replace(
        plan,
        params_in_scope=params_in(graph, groups),
        before=cost(graph, {}),
        after=cost(graph, plan.removed, plan.biases),
    )
