"""What modules remember about their size, brought in line: head counts, grouped-query heads, widths.

Parameters say their own shape. The rest are integers kept by modules (head counts, split sizes), by
the config they read, and arguments with one entry per head (ALiBi slopes). `fit_attention` rewrites an
attention block, grouped queries included; `core.surgery.ragged` expands key-value heads that are shared
unevenly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers.pytorch_utils import Conv1D

from core.errors import NotPrunableError
from core.graph.records import Attention, Graph, Group
from core.plan.heads import Heads
from core.surgery.modeling_pruned import LayerConfig, expand_after_cache, expand_outputs
from core.surgery.ragged import uses_interface

#: Integers whose name says that they are not a size, whatever their value.
_NOT_A_SIZE = (
    "head_dim", "head_size", "per_attention_head", "idx", "index", "layer", "max_", "rotary", "rope",
    "groups", "window",
)  # fmt: skip
#: The grouped matrix product wants rows of whole 16 bytes: 8 numbers of 16 bits.
_ALIGNED = 8


def fit_shapes(owner: Any, attribute: str, old: Sequence[int]) -> None:
    """Make a module's own sizes those of its parameter, whose shape was `old`."""
    shape = owner.get_parameter(attribute).shape
    if isinstance(owner, (nn.Linear, Conv1D, nn.Embedding)):
        if attribute == "weight" and isinstance(owner, nn.Linear):
            owner.out_features, owner.in_features = shape
        elif attribute == "weight" and isinstance(owner, Conv1D):
            owner.nx, owner.nf = shape
        elif isinstance(owner, nn.Embedding):
            owner.num_embeddings, owner.embedding_dim = shape
    elif isinstance(getattr(owner, "normalized_shape", None), tuple):
        owner.normalized_shape = tuple(shape)
    else:
        replace_sizes(owner, {was: now for was, now in zip(old, shape, strict=True) if was != now})
    if len(shape) >= 3 and hasattr(owner, "config") and any(size % _ALIGNED for size in shape[1:]):
        # The module's own loop takes any size.
        owner.config = LayerConfig(owner.config, {"_experts_implementation": "eager"})


def replace_sizes(module: nn.Module, sizes: Mapping[int, int]) -> None:
    """Replace integers a module keeps by value: old size -> new size."""
    for name, value in list(vars(module).items()):
        is_size = type(value) is int and not any(part in name for part in _NOT_A_SIZE)
        if is_size and value in sizes:
            setattr(module, name, sizes[value])


def fit_feed_forward(model: nn.Module, group: Group, removed: int) -> None:
    """Bring the modules around an FFN group in line: those that own its members and the one around them."""
    owners = {member.parameter.rpartition(".")[0] for member in group.members}
    around = _common_parent(sorted(owners))
    for name in sorted(owners | {around}):
        module = model.get_submodule(name)
        if not isinstance(module, (nn.Linear, Conv1D)) and name != "":
            replace_sizes(module, {group.units: group.units - removed})


def fit_stream(model: nn.Module, graph: Graph, group: Group, removed: int) -> None:
    """Bring modules that read the residual stream in line, where nothing else in them has its size."""
    ours = {(member.parameter, member.dim) for member in group.members}
    for path, module in model.named_modules():
        names = (f"{path}.{name}" for name, _ in module.named_parameters())
        shapes = {name: graph.parameters[name].shape for name in names if name in graph.parameters}
        same = {(name, d) for name, shape in shapes.items() for d, n in enumerate(shape) if n == group.units}
        if same and same <= ours and not isinstance(module, (nn.Linear, Conv1D)):
            replace_sizes(module, {group.units: group.units - removed})


def _common_parent(names: Sequence[str]) -> str:
    parts = [name.split(".") for name in names]
    common = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return ".".join(common)


def fit_attention(model: nn.Module, graph: Graph, attention: Attention, heads: Heads) -> None:
    """Bring an attention block in line with the heads that stay.

    Raises:
        NotPrunableError: ragged heads in a block that offers no place to expand them.
    """
    module: Any = model.get_submodule(attention.module)
    ragged = not heads.uniform
    key_value = len(heads.key_value)
    if ragged and not uses_interface(module):
        _expand_before_cache(model, graph, attention, heads)
        key_value, ragged = len(heads.query), False
    _replace_head_counts(module, attention, len(heads.query), key_value)
    if hasattr(module, "num_key_value_groups"):
        module.num_key_value_groups = len(heads.query) // key_value
    if ragged:
        expand_after_cache(module, heads.kv_index)
    if hasattr(module, "config"):
        counts = {"num_attention_heads": len(heads.query), "num_key_value_heads": key_value}
        module.config = LayerConfig(module.config, _as_named(module.config, counts), ragged=ragged)


def _as_named(config: Any, values: dict[str, int]) -> dict[str, int]:
    """The values under the standard names and under this family's own (`n_head`)."""
    aliases: dict[str, str] = getattr(config, "attribute_map", {})
    return values | {aliases[name]: value for name, value in values.items() if name in aliases}


def _replace_head_counts(module: nn.Module, attention: Attention, query: int, key_value: int) -> None:
    old_q, old_kv, dim = attention.heads, attention.kv_heads, attention.head_dim
    total, left = old_q + 2 * old_kv, query + 2 * key_value
    of_keys = {old_kv: key_value, old_kv * dim: key_value * dim}
    by_value = {**of_keys, total * dim: left * dim}
    by_value |= {old_q: query, old_q * dim: query * dim}  # where both fit, a size is more often the queries'
    for name, value in list(vars(module).items()):
        if type(value) is not int:
            continue
        if _counts_key_values(name):
            setattr(module, name, of_keys.get(value, value))
        elif value in by_value and not any(part in name for part in _NOT_A_SIZE):
            setattr(module, name, by_value[value])


def _counts_key_values(name: str) -> bool:
    """Whether an attribute speaks of key-value heads, and not of how many query heads share one."""
    shared = "key_value_groups" in name or "kv_groups" in name
    return not shared and any(part in name.replace("qkv", "") for part in ("kv", "key_value", "multi_query"))


def _expand_before_cache(model: nn.Module, graph: Graph, attention: Attention, heads: Heads) -> None:
    """Let the matrices that make keys and values give one of each to every query head."""
    group = next(g for g in graph.of_kind("query_head") if g.layer == attention.layer)
    assert group.parent is not None
    own = {(member.parameter, member.dim): member.index() for member in group.members}
    for member in graph.group(group.parent).members:
        owner = model.get_submodule(member.parameter.rpartition(".")[0])
        queries = own.get((member.parameter, member.dim), np.empty((group.units, 0), dtype=np.int64))
        if np.isin(member.index(), queries).all() or member.role == "vector":
            continue  # the query heads' own slices, and biases, which go with their matrix
        whole = member.index().size == graph.parameters[member.parameter].shape[member.dim]
        if member.role != "layer1" or not whole or not isinstance(owner, (nn.Linear, Conv1D)):
            raise NotPrunableError(
                f"{attention.module} cannot keep uneven numbers of query heads: its keys and values are not "
                f"made by matrices of their own. Prune kv_group instead of query_head, or other layers."
            )
        expand_outputs(owner, _outputs_per_head(queries, member.index(), heads))


def _outputs_per_head(queries: NDArray[np.int64], shared: NDArray[np.int64], heads: Heads) -> list[int]:
    """Outputs of a matrix in the order it would have them if every query head had its own key and value.

    Args:
        queries: the outputs that each query head has to itself, (heads, width); the width may be 0.
        shared: the outputs of each key-value head, those of its query heads among them, (units, width).

    Returns:
        Numbers of outputs that are left, section by section (all queries, all keys, all values), or head by
        head where the matrix was laid out so.
    """
    head_by_head = queries.size > 0 and all(a.max() < b.min() for a, b in pairwise(shared))
    keys = [np.setdiff1d(unit, queries) for unit in shared]
    runs = [[unit] if head_by_head else _runs(unit) for unit in keys]
    old = [heads.key_value[kv] for kv in heads.kv_index]
    sections = [[queries[head] for head in heads.query]] if queries.size else []
    sections += [[section[kv] for kv in old] for section in zip(*runs, strict=True)]
    sections.sort(key=lambda section: int(section[0][0]))
    ordered = list(zip(*sections, strict=True)) if head_by_head else sections
    outputs = np.concatenate([rows for part in ordered for rows in part])
    numbers: list[int] = np.searchsorted(np.unique(outputs), outputs).tolist()
    return numbers


def _runs(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows, cut wherever a number is missing."""
    return np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
