"""Attention heads: which classes of labels go with a query head, and which heads share keys and values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from core.graph.flow import Flow
from core.graph.labels import Ints, Product
from core.graph.table import Table


@dataclass(frozen=True)
class HeadSet:
    """The heads of one attention block.

    Attributes:
        module: whose forward holds the softmax.
        heads: classes that go with each query head.
        groups: classes that go with each key-value head (all its query heads in it).
        group_of: the key-value head of each query head, (heads,).
        channels: classes of the query channels by head, then of the key channels, (2 * heads, head_dim).
        queries, values: labels of their channels, which say what they are made by: queries and keys that are
            contracted over the same channels are of one class.
        value_dim: channels of one value.
    """

    module: str
    heads: list[Ints]
    groups: list[Ints]
    group_of: Ints
    channels: Ints
    queries: Ints
    values: Ints
    value_dim: int


def find_heads(flow: Flow, table: Table) -> tuple[list[HeadSet], list[tuple[str, str]]]:
    """All attention blocks, and (module, reason) for products of activations that are not attention."""
    find = flow.store.find
    together: dict[bytes, list[Product]] = {}
    for product in flow.store.products:
        # The same queries and keys may be multiplied twice: a layer that runs twice, or values in two parts.
        key = find(product.left).tobytes() + find(product.right).tobytes()
        together.setdefault(key, []).append(product)
    blocks: list[HeadSet] = []
    failed: list[tuple[str, str]] = []
    for products in together.values():
        softmax = _softmax_of(flow, products)
        if softmax is None:
            why = "two activations are multiplied without a softmax: no heads can be told apart"
            failed.append((products[0].module, why))
            continue
        heads = _heads(flow, table, products, softmax)
        if heads is None:
            failed.append((softmax, "the probabilities of this attention never meet values with channels"))
        else:
            blocks.append(heads)
    return blocks, failed


def _softmax_of(flow: Flow, products: list[Product]) -> str | None:
    scores = np.concatenate([flow.store.find(product.scores) for product in products])
    for labels, module in flow.softmaxes:
        if np.isin(flow.store.find(labels), scores).any():
            return module
    return None


def _heads(flow: Flow, table: Table, products: list[Product], module: str) -> HeadSet | None:
    find = flow.store.find
    _, first = np.unique(find(products[0].scores), return_index=True)
    scores = np.stack([find(product.scores[first]) for product in products], axis=1)  # (heads, products)
    left, right = find(products[0].left[first]), find(products[0].right[first])  # (heads, head_dim)
    outs, values = _values(flow, scores)
    if any(len(out) == 0 for out in outs):
        return None
    channels = np.concatenate([left, right], axis=1)
    alone = _exclusive(channels, np.arange(len(scores)))
    heads = [
        table.closure(np.concatenate([scores[h], outs[h], _nonzero(alone[h])])) for h in range(len(scores))
    ]
    sharing = _components(values, right)
    together = _exclusive(channels, sharing)
    groups = []
    for group in range(int(sharing.max()) + 1):
        inside = np.flatnonzero(sharing == group)
        parts = [heads[h] for h in inside] + [values[h] for h in inside] + [_nonzero(together[inside])]
        groups.append(table.closure(np.concatenate(parts)))
    both = np.concatenate([left, right])
    read = [mixture.value for mixture in flow.store.mixtures if np.isin(find(mixture.head), scores).any()]
    width = max(len(value) for value in values)
    return HeadSet(module, heads, groups, sharing, both, products[0].left, np.concatenate(read), width)


def _values(flow: Flow, scores: Ints) -> tuple[list[Ints], list[Ints]]:
    """The output and the value classes of each head, from the scores of all its products."""
    find = flow.store.find
    outs: list[list[Ints]] = [[] for _ in scores]
    values: list[list[Ints]] = [[] for _ in scores]
    for mixture in flow.store.mixtures:
        heads = find(mixture.head)
        for number in np.flatnonzero(np.isin(scores, heads).any(axis=1)):
            mine = np.isin(heads, scores[number])
            outs[number].append(find(mixture.out[mine]))
            values[number].append(find(mixture.value[mine]))
    return [_joined(parts) for parts in outs], [_joined(parts) for parts in values]


def _joined(parts: list[Ints]) -> Ints:
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)


def _nonzero(classes: Ints) -> Ints:
    return np.unique(classes[classes > 0])


def _components(values: list[Ints], keys: Ints) -> Ints:
    """Heads that read the same value channels, or exactly the same keys, share a key-value head, (heads,)."""
    lines = [np.concatenate([value, [-1 - key]]) for value, key in zip(values, _line_ids(keys), strict=True)]
    flat = np.concatenate(lines)
    heads = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
    names, column = np.unique(flat, return_inverse=True)
    incidence = csr_matrix((np.ones(len(flat)), (heads, column)), shape=(len(lines), len(names)))
    _, component = connected_components(incidence @ incidence.T, directed=False)
    _, order, which = np.unique(component, return_index=True, return_inverse=True)
    rank = np.empty(len(order), dtype=np.int64)
    rank[np.argsort(order)] = np.arange(len(order))
    numbered: Ints = rank[which]
    return numbered


def _line_ids(lines: Ints) -> Ints:
    _, ids = np.unique(np.sort(lines, axis=1), axis=0, return_inverse=True)
    return ids.ravel().astype(np.int64)


def _exclusive(lines: Ints, owner: Ints) -> Ints:
    """`lines` with every class that stands in lines of several owners replaced by 0."""
    classes, which = np.unique(lines, return_inverse=True)
    who = np.broadcast_to(owner[:, None], lines.shape).ravel()
    low = np.full(len(classes), len(owner), dtype=np.int64)
    high = np.full(len(classes), -1, dtype=np.int64)
    np.minimum.at(low, which.ravel(), who)
    np.maximum.at(high, which.ravel(), who)
    exclusive: Ints = np.where((low == high)[which].reshape(lines.shape), lines, 0)
    return exclusive


def head_dim_pairs(table: Table, heads: HeadSet) -> list[Ints]:
    """Channels of queries and keys that only go together, in all heads at once, e.g. rotary pairs."""
    classes, column = np.unique(heads.channels, return_inverse=True)
    width = heads.channels.shape[1]
    where = np.tile(np.arange(width), len(heads.channels))
    shape = (width, len(classes))
    incidence = csr_matrix((np.ones(len(where)), (where, column.ravel())), shape=shape)
    count, component = connected_components(incidence @ incidence.T, directed=False)
    pairs: list[Ints] = []
    for number in range(count):
        pair = heads.channels[:, component == number]
        pairs.append(table.closure(np.setdiff1d(np.unique(pair), [0])))
    return sorted(pairs, key=lambda unit: int(unit[0]))
