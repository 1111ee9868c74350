"""Rules for operations that move elements about: they are run on the labels themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.graph.flow import Flow, Labels, refs, rule, substitute
from core.graph.labels import compact, varies
from core.graph.trace import Node, Ref

_SAME = ("detach", "alias", "lift_fresh", "_to_copy", "contiguous", "_conj", "clone")


@rule(*_SAME)
def same(flow: Flow, node: Node) -> list[Labels | None]:
    """Another copy of the same numbers."""
    labels = flow.get(node.args[0])
    if labels is None or labels.origin is not None:
        return [labels]
    return [Labels(tuple(plane.clone() for plane in labels.planes))]


@rule("view", "_unsafe_view", "reshape", "_reshape_alias")
def reshape(flow: Flow, node: Node) -> list[Labels | None]:
    """Another shape; labels are laid out in memory in another way, so this may copy them."""
    labels = flow.get(node.args[0])
    assert labels is not None
    shape = flow.tape.shapes[node.outputs[0]]
    result = Labels(tuple(plane.reshape(shape) for plane in labels.planes), labels.origin)
    if result.origin is None:
        for dims in _splits(flow.shape(node.args[0]), shape):
            if sum(varies(result.plane, dim) for dim in dims) > 1:
                flow.look_across(result.plane, dims, "grid", f"{node.name} to {[shape[d] for d in dims]}")
    return [result]


def _splits(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The dimensions of `after` that one dimension of `before` was taken apart into."""
    splits = []
    i = j = 0
    while i < len(before) and j < len(after):
        start_i, start_j, left, right = i, j, before[i], after[j]
        while left != right:
            if left < right:
                i += 1
                left *= before[i]
            else:
                j += 1
                right *= after[j]
        i, j = i + 1, j + 1
        if i - start_i == 1 and j - start_j > 1:
            splits.append(tuple(range(start_j, j)))
    return splits


@rule("*view", "repeat", "flip", "roll", "unfold", "tril", "triu", "constant_pad_nd")
def move(flow: Flow, node: Node) -> list[Labels | None]:
    """Views, and copies that only rearrange: the operation itself, run on each plane."""
    source = next(ref for ref in refs(node) if flow.get(ref) is not None)
    labels = flow.get(source)
    assert labels is not None
    results: list[list[Tensor]] = []
    for plane in labels.planes:
        args, kwargs = substitute(node, lambda ref, plane=plane: plane)  # type: ignore[misc]
        out = node.op(*args, **kwargs)
        results.append(list(out) if isinstance(out, (tuple, list)) else [out])
    return [Labels(planes, labels.origin) for planes in zip(*results, strict=True)]


@rule("view_as_complex")
def as_complex(flow: Flow, node: Node) -> list[Labels | None]:
    """Two neighbours become one complex number: they go together, as rotary pairs do."""
    labels = flow.get(node.args[0])
    assert labels is not None
    flow.store.unite(labels.plane[..., 0].numpy(), labels.plane[..., 1].numpy())
    return [Labels((labels.plane[..., 0].clone(),))]


@rule("view_as_real")
def as_real(flow: Flow, node: Node) -> list[Labels | None]:
    """One complex number becomes two neighbours."""
    labels = flow.get(node.args[0])
    assert labels is not None
    return [Labels((labels.plane.unsqueeze(-1).expand(flow.tape.shapes[node.outputs[0]]).clone(),))]


@rule("cat", "stack")
def join(flow: Flow, node: Node) -> list[Labels | None]:
    """Several values side by side; those without channels are filled with 0."""
    parts, dim = node.args[0], node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    labelled = [flow.get(part) for part in parts]
    count = max(len(labels.planes) for labels in labelled if labels is not None)
    planes = []
    for number in range(count):
        pieces = [_piece(flow, part, labels, number) for part, labels in zip(parts, labelled, strict=True)]
        planes.append(node.op(pieces, dim))
    origins = {labels.origin for labels in labelled if labels is not None}
    return [Labels(tuple(planes), origins.pop() if len(origins) == 1 and None not in labelled else None)]


def _piece(flow: Flow, part: Ref, labels: Labels | None, number: int) -> Tensor:
    if labels is None or number >= len(labels.planes):
        return torch.zeros(flow.shape(part), dtype=torch.long)
    return labels.planes[number]


@rule("embedding")
def embedding(flow: Flow, node: Node) -> list[Labels | None]:
    """A lookup in a table: the columns are channels, the rows are chosen by number."""
    table, index = node.args[0], node.args[1]
    labels = flow.get(table)
    if labels is None:
        return [None]
    if labels.origin is not None:
        flow.store.use(labels.origin, 0, "lookup")
        flow.store.use(labels.origin, 1, "embedding")
    columns = labels.planes[-1][0]
    return [Labels((columns.expand(*flow.shape(index), -1).clone(),))]


@rule("index", "_unsafe_index")
def index(flow: Flow, node: Node) -> list[Labels | None]:
    """`x[i, :, j]`, with the real numbers where they are known, else where they do not matter."""
    labels, indices = flow.get(node.args[0]), list(node.args[1])
    if labels is None:
        return [None]
    dims = [dim for dim, picked in enumerate(indices) if picked is not None]
    planes = [_picked(flow, node, labels, number, dims) for number in range(len(labels.planes))]
    return [Labels(tuple(planes), labels.origin)] if any(p.any() for p in map(compact, planes)) else [None]


def _picked(flow: Flow, node: Node, labels: Labels, number: int, dims: list[int]) -> Tensor:
    plane, shape = labels.planes[number], flow.tape.shapes[node.outputs[0]]
    if any(varies(plane, dim) for dim in dims):
        numbers = [None if picked is None else flow.real(picked) for picked in node.args[1]]
        if all(numbers[dim] is not None for dim in dims):
            picked: Tensor = node.op(plane, numbers)
            return picked
        return chosen(flow, labels, number, tuple(dims), shape)
    for dim in reversed(dims):
        plane = plane.select(dim, 0)
    width = max(len(flow.shape(node.args[1][dim])) for dim in dims)
    together = dims == list(range(dims[0], dims[0] + len(dims)))
    for _ in range(width):
        plane = plane.unsqueeze(dims[0] if together else 0)
    return plane.expand(shape)


@rule("index_select")
def index_select(flow: Flow, node: Node) -> list[Labels | None]:
    """`x.index_select(dim, i)`."""
    labels, dim, numbers = flow.get(node.args[0]), node.args[1], node.args[2]
    if labels is None:
        return [None]
    shape, real = flow.tape.shapes[node.outputs[0]], flow.real(numbers)
    planes = []
    for number, plane in enumerate(labels.planes):
        if not varies(plane, dim):
            planes.append(plane.narrow(dim, 0, 1).expand(shape))
        elif real is not None:
            planes.append(plane.index_select(dim, real))
        else:
            planes.append(chosen(flow, labels, number, (dim,), shape))
    return [Labels(tuple(planes), labels.origin)]


@rule("gather")
def gather(flow: Flow, node: Node) -> list[Labels | None]:
    """`x.gather(dim, i)` with numbers that depend on the data."""
    labels, dim = flow.get(node.args[0]), node.args[1]
    shape = flow.tape.shapes[node.outputs[0]]
    if labels is None:
        return [None]
    plane = labels.plane
    if varies(plane, dim):
        return [Labels((chosen(flow, labels, 0, (dim,), shape),))]
    box = [slice(0, size) for size in shape]
    box[dim] = slice(0, 1)
    return [Labels((plane[tuple(box)].expand(shape).clone(),))]


def chosen(flow: Flow, labels: Labels, number: int, dims: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """Channels picked by numbers that depend on the data carry no label afterwards.

    A dimension of a parameter that is picked from like this holds one slice per choice (an expert).
    """
    if labels.origin is not None:
        flow.store.use(labels.origin, number, "stack")
    else:
        flow.look_across(labels.planes[number], dims, "choice")
    return torch.zeros(1, dtype=torch.long).expand(shape)


@rule("copy")
def copy(flow: Flow, node: Node) -> list[Labels | None]:
    """All of a value written into another, or into a view of it."""
    shape, source = flow.tape.shapes[node.outputs[0]], flow.get(node.args[1])
    plane = source.plane if source is not None else torch.zeros(1, dtype=torch.long)
    return [Labels((plane.expand(shape).clone(),))]


@rule("index_put", "index_add", "index_copy", "scatter", "scatter_add", "slice_scatter", "select_scatter")
def put(flow: Flow, node: Node) -> list[Labels | None]:
    """Write one value into another; exact where labels do not change along the places written to."""
    target, shape = flow.get(node.args[0]), flow.tape.shapes[node.outputs[0]]
    values = [labels for ref in refs(node)[1:] if (labels := flow.get(ref)) is not None]
    if not values:
        return [target]
    filling = values[-1].plane
    lines = compact(filling)
    if any(lines.shape[dim] > 1 and varies(lines, dim) for dim in range(lines.dim() - 1)):
        flow.look_across(filling, tuple(range(filling.dim())), "unknown")
        return [target]
    flat = lines.reshape(-1, lines.shape[-1])[:1]
    if flat.shape[-1] not in (1, shape[-1]):
        flow.look_across(filling, tuple(range(filling.dim())), "unknown")
        return [target]
    written = flat.reshape([1] * (len(shape) - 1) + [-1]).expand(shape).clone()
    if target is not None:
        flow.store.unite(written.numpy(), target.plane.expand(shape).numpy())
    return [Labels((written,))]


@rule("*unknown")
def unknown(flow: Flow, node: Node) -> list[Labels | None]:
    """An operation without a rule: its channels cannot be followed, and whatever meets them is told so."""
    for ref in refs(node):
        labels = flow.get(ref)
        for plane in labels.planes if labels is not None else ():
            flow.flag(plane, "unknown")
    flow.lost.update(dict.fromkeys(node.outputs, f"{node.name} in module '{node.module}'"))
    nothing: list[Any] = [None] * len(node.outputs)
    return nothing
