"""Rules for matrix products: with a parameter (a linear layer) or of two activations (attention)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.graph.flow import Flow, Labels, rule
from core.graph.labels import Ints, Mixture, Product, compact, unique_rows, varies
from core.graph.pointwise import constant, meet
from core.graph.trace import Node


@rule("mm", "bmm", "mv")
def product(flow: Flow, node: Node) -> list[Labels | None]:
    """`a @ b`, perhaps batched."""
    return [contract(flow, node, node.args[0], node.args[1])]


@rule("addmm", "baddbmm", "addbmm")
def added_product(flow: Flow, node: Node) -> list[Labels | None]:
    """`c + a @ b`: a bias, or what is added to attention scores."""
    result = contract(flow, node, node.args[1], node.args[2])
    added, shape = flow.get(node.args[0]), flow.tape.shapes[node.outputs[0]]
    if added is None:
        if result is not None:
            constant(flow, result, node.args[0], shape)
        return [result]
    spread = Labels(tuple(plane.expand(shape) for plane in added.planes), added.origin)
    return [spread if result is None else meet(flow, result, spread)]


@rule("_grouped_mm", "grouped_mm_fallback")
def grouped(flow: Flow, node: Node) -> list[Labels | None]:
    """Rows of `a`, sorted by expert, times the matrix of their expert."""
    stack = flow.get(node.args[1])
    if stack is None or stack.origin is None:
        return [contract(flow, node, node.args[0], node.args[1])]
    flow.store.use(stack.origin, 0, "stack")
    expert = Labels((torch.zeros_like(stack.planes[1][0]), *(p[0] for p in stack.planes[1:])), stack.origin)
    experts = flow.shape(node.args[1])[0]
    return [_multiplied(flow, node, flow.get(node.args[0]), expert, experts)]


def contract(flow: Flow, node: Node, left: Any, right: Any) -> Labels | None:
    """The labels of a product; what meets along the contracted dimension is tied."""
    return _multiplied(flow, node, flow.get(left), flow.get(right), 1)


def _multiplied(flow: Flow, node: Node, a: Labels | None, b: Labels | None, stack: int) -> Labels | None:
    shape = flow.tape.shapes[node.outputs[0]]
    left, right = _Side(a, -1), _Side(b, -2)
    for side, other in ((left, right), (right, left)):
        side.count_use(flow, shape, stack)
        if side.batch is not None and not other.same_in_batch():
            _block_diagonal(flow, node, other)
            return None
        if side.batch is not None and side.labels is not None and side.labels.origin is not None:
            flow.store.use(side.labels.origin, side.batch, "stack")
    if left.inner is not None and right.inner is not None:
        return _contracted(flow, node, left, right, shape)
    for side in (left, right):
        if side.inner is not None and not side.parameter:
            flow.look_across(side.inner, (side.axis,), "unknown", f"{node.name} with fixed numbers")
    return _outer(flow, left, right, shape)


def _block_diagonal(flow: Flow, node: Node, other: _Side) -> None:
    """One matrix per block of channels: no channel can go without leaving a block of another size."""
    if other.inner is not None:
        flow.flag(other.inner, "unknown", f"{node.name} with one matrix per block")
    flow.lost.update(dict.fromkeys(node.outputs, f"{node.name} in module '{node.module}'"))


class _Side:
    """One operand of a product: its labels along the contracted axis, and those along the other.

    Attributes:
        inner: the plane that is contracted; outer: the plane that goes on; None where there is none.
        batch: for a parameter with one matrix per entry of a batch, its dimension that counts them.
    """

    def __init__(self, labels: Labels | None, axis: int) -> None:
        self.axis = axis
        self.labels = labels
        self.parameter = labels is not None and labels.origin is not None
        planes = list(enumerate(labels.planes)) if labels is not None else []
        inner = [(n, p) for n, p in planes if varies(p, p.dim() + axis)]
        outer = [(n, p) for n, p in planes if (n, p) not in inner and bool(compact(p).any())]
        other = -1 if axis == -2 else -2
        outer.sort(
            key=lambda item: item[1].dim() >= 2 and varies(item[1], item[1].dim() + other), reverse=True
        )
        self.inner: Tensor | None = inner[0][1] if inner else None
        self.outer: Tensor | None = outer[0][1].narrow(axis, 0, 1) if outer else None
        self.numbers = (inner[0][0] if inner else None, outer[0][0] if outer else None)

        batched = self.parameter and len(planes) > 2 and planes[0][1].dim() == 3
        self.batch = next((n for n, p in planes if batched and varies(p, 0)), None)

    def same_in_batch(self) -> bool:
        """Whether all entries of the batch hold the same channels, as when every expert reads the stream."""
        return self.inner is not None and not varies(self.inner, 0)

    def count_use(self, flow: Flow, shape: tuple[int, ...], stack: int) -> None:
        """Remember which dimension of a parameter is read, which written, and what it costs."""
        if not self.parameter:
            return
        assert self.labels is not None and self.labels.origin is not None
        origin = self.labels.origin
        for number, role in zip(self.numbers, ("in", "out"), strict=True):
            if number is not None:
                flow.store.use(origin, number, role)
        along = shape[-2] if self.axis == -2 and len(shape) > 1 else shape[-1]
        flow.macs[origin] = flow.macs.get(origin, 0.0) + along / flow.tape.tokens / stack

    def lines(self) -> tuple[Ints, NDArray[np.int64]]:
        """The distinct lines of labels that are contracted, and which one each row has, (batch, rows)."""
        assert self.inner is not None
        keep = (self.inner.dim() + self.axis,)
        plane = compact(self.inner, keep=keep).movedim(self.axis, -1)
        flat = plane.reshape(-1, plane.shape[-1]).numpy()
        distinct, which = unique_rows(flat)
        return distinct, which.reshape(plane.shape[:-1])


def _contracted(flow: Flow, node: Node, left: _Side, right: _Side, shape: tuple[int, ...]) -> Labels | None:
    rows, row_of = left.lines()
    columns, column_of = right.lines()
    if row_of.ndim == 2 or column_of.ndim == 2:
        row_of, column_of = np.atleast_2d(row_of)[..., :, None], np.atleast_2d(column_of)[..., None, :]
    else:
        row_of, column_of = row_of[..., :, None], column_of[..., None, :]
    if len(shape) == 2 and row_of.ndim == 3:
        row_of, column_of = row_of[0], column_of[0]
    codes, cell = np.unique(row_of * len(columns) + column_of, return_inverse=True)
    i, j = np.divmod(codes, len(columns))
    flow.store.tie(rows[i], columns[j])
    cells = cell.reshape(np.broadcast_shapes(row_of.shape, column_of.shape))
    if not left.parameter and not right.parameter:
        return _scores(flow, node, rows[i], columns[j], cells, shape)
    written = left.outer if left.parameter else right.outer
    if left.parameter and right.parameter:
        return _matrix(left, right, shape)
    if written is None:
        return None
    if len(codes) == 1:
        return Labels((written.expand(shape),))
    return _per_row(flow, written.expand(shape), rows[i] if right.parameter else columns[j], cells, shape)


def _scores(
    flow: Flow, node: Node, left: Ints, right: Ints, cells: NDArray[np.int64], shape: tuple[int, ...]
) -> Labels:
    """Query times key: every distinct pair of label lines is a head."""
    heads = flow.store.fresh(len(left))
    flow.store.products.append(Product(heads, left, right, node.module, flow.position))
    return Labels((torch.from_numpy(heads[cells]).expand(shape).clone(),))


def _per_row(
    flow: Flow, written: Tensor, lines: Ints, cells: NDArray[np.int64], shape: tuple[int, ...]
) -> Labels:
    """One matrix applied to several sets of channels, e.g. to each head: the outputs are told apart."""
    cell = np.broadcast_to(cells, shape)
    base = written.numpy()
    codes, which = np.unique(cell * (int(base.max()) + 1) + base, return_inverse=True)
    fresh = flow.store.fresh(len(codes))
    set_of, label_of = np.divmod(codes, int(base.max()) + 1)
    flow.store.tie(fresh, label_of)
    # An output is gone when all that went into it is gone.
    for number in range(len(lines)):
        outputs = fresh[set_of == number]
        pairs = np.stack([np.repeat(outputs, lines.shape[1]), np.tile(lines[number], len(outputs))], axis=1)
        flow.store.shared.append(pairs)
    return Labels((torch.from_numpy(fresh[which.reshape(shape)]),))


def _matrix(left: _Side, right: _Side, shape: tuple[int, ...]) -> Labels | None:
    """The product of two parameters is a matrix again, with channels on both sides."""
    if left.outer is None or right.outer is None or left.labels is None:
        return None
    return Labels((left.outer.expand(shape), right.outer.expand(shape)), left.labels.origin)


def _outer(flow: Flow, left: _Side, right: _Side, shape: tuple[int, ...]) -> Labels | None:
    """Nothing was contracted but positions: labels of both sides go on, together where both have some."""
    if left.outer is None or right.outer is None:
        only = left.outer if right.outer is None else right.outer
        return None if only is None else Labels((only.expand(shape).clone(),))
    a, b = left.outer.expand(shape).numpy(), right.outer.expand(shape).numpy()
    base = int(b.max()) + 1
    codes, which = np.unique(a.astype(np.int64) * base + b, return_inverse=True)
    out = flow.store.fresh(len(codes))
    head, value = np.divmod(codes, base)
    none = (head == 0) | (value == 0)
    out = np.where(none, head + value, out)
    flow.store.mixtures.append(Mixture(out[~none], head[~none], value[~none]))
    flow.store.tie(out, value)
    return Labels((torch.from_numpy(out[which.reshape(shape)]),))
