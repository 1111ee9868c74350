"""Rules for elementwise operations: labels that meet are tied."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from core.graph.flow import Flow, Labels, refs, rule
from core.graph.labels import compact, varies
from core.graph.trace import Node, Ref


@rule("*pointwise", "where", "masked_fill", "dropout", "native_dropout", "rsub", "nan_to_num")
def pointwise(flow: Flow, node: Node) -> list[Labels | None]:
    """Any elementwise operation on one or more values, with broadcasting."""
    shape = flow.tape.shapes[node.outputs[0]]
    result: Labels | None = None
    plain: list[Ref] = []
    for ref in refs(node):
        labels = flow.get(ref)
        if labels is None:
            plain.append(ref)
            continue
        spread = Labels(tuple(plane.expand(shape) for plane in labels.planes), labels.origin)
        result = spread if result is None else meet(flow, result, spread)
    assert result is not None
    if (
        result.origin is not None
        and len(result.planes) == 1
        and any(max(flow.shape(r), default=1) > 1 for r in plain)
    ):
        # A vector of the model applied to values without channels makes its indices their channels.
        flow.store.use(result.origin, 0, "vector")
        result = Labels(result.planes)
    for ref in plain:
        constant(flow, result, ref, shape)
    if result.origin is not None:
        return [result]
    return [Labels(tuple(plane.clone() for plane in result.planes))]


def meet(flow: Flow, left: Labels, right: Labels) -> Labels:
    """Tie the labels of two equally shaped values; the finer labels go on."""
    for labels in (left, right):
        if labels.origin is not None and len(labels.planes) == 1:
            flow.store.use(labels.origin, 0, "vector")
    if len(left.planes) == len(right.planes):
        vector = left.origin is not None, right.origin is not None
        planes = tuple(_tied(flow, a, b, vector) for a, b in zip(left.planes, right.planes, strict=True))
        return Labels(planes, left.origin if all(vector) else None)
    table, values = (left, right) if len(left.planes) > 1 else (right, left)
    # Of a table of positions only the channel dimension meets the activations; of one of heads, both do.
    plane = values.plane
    meeting = [_same_lines(plane, part) for part in table.planes]
    stacked = "stack" in (flow.store.roles.get((table.origin or "", d)) for d in range(len(meeting)))
    for number in np.flatnonzero(meeting):
        if table.origin is not None:
            flow.store.use(table.origin, int(number), "vector" if stacked or all(meeting) else "embedding")
        plane = _tied(flow, plane, table.planes[number], (False, table.origin is not None))
    return Labels((plane,))


def _same_lines(values: Tensor, part: Tensor) -> bool:
    """Whether `part` changes along no dimension but those along which the activations' labels change."""
    return all(varies(values, dim) or not varies(part, dim) for dim in range(values.dim()))


def _tied(flow: Flow, left: Tensor, right: Tensor, parameter: tuple[bool, bool]) -> Tensor:
    """Tie two planes, and give the labels that go on: the finer ones, else the activations'."""
    assert flow.node is not None
    vector = None
    if parameter[0] != parameter[1]:
        vector = np.unique(compact(left if parameter[0] else right).numpy())
    shared = flow.store.tie(left.numpy(), right.numpy(), vector, (flow.node.module, flow.node.name))
    coarse = torch.from_numpy(np.isin(left.numpy(), shared))
    if parameter == (True, False):
        coarse |= torch.from_numpy(~np.isin(right.numpy(), shared))
    return torch.where((left == 0) | (coarse & (right != 0)), right, left)


def constant(flow: Flow, result: Labels, ref: Ref, shape: tuple[int, ...]) -> None:
    """Note fixed numbers that differ from channel to channel, e.g. one slope per head."""
    size = flow.own_shape(ref)
    if result.origin is not None or not size:
        return
    offset = len(shape) - len(size)
    plane = result.plane
    dims = tuple(d for d in range(offset, len(shape)) if size[d - offset] > 1 and varies(plane, d))
    if dims:
        flow.look_across(compact(plane, keep=dims), dims, "constant")
