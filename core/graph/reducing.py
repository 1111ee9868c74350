"""Rules for operations that look along a whole dimension: sums, norms, softmax, choices."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.graph.flow import Flow, Labels, refs, rule
from core.graph.labels import unique_rows, varies
from core.graph.pointwise import meet, pointwise
from core.graph.trace import Node, Ref


@rule(
    "mean", "var", "std", "var_mean", "linalg_vector_norm", "norm", "amax", "amin", "prod", "logsumexp",
    "any", "all",
)  # fmt: skip
def reduce(flow: Flow, node: Node) -> list[Labels | None]:
    """One number for a line of channels."""
    labels = flow.get(node.args[0])
    assert labels is not None
    return [_reduced(flow, node, labels, _statistic(flow, node))] * len(node.outputs)


@rule("sum")
def total(flow: Flow, node: Node) -> list[Labels | None]:
    """A sum over channels is sound for any subset of them; a sum over something else adds values up."""
    labels = flow.get(node.args[0])
    assert labels is not None
    dims = _dims(node, labels)
    rest = [d for d in range(labels.plane.dim()) if d not in dims]
    if any(varies(labels.plane, dim) for dim in dims) and any(varies(labels.plane, dim) for dim in rest):
        for dim in dims:
            count = labels.plane.shape[dim] - 1
            first, other = labels.plane.narrow(dim, 0, count), labels.plane.narrow(dim, 1, count)
            flow.store.unite(first.numpy(), other.numpy())
        return [_squeezed(flow, node, labels.plane, dims)]
    return [_reduced(flow, node, labels, None)]


def _reduced(flow: Flow, node: Node, labels: Labels, kind: str | None) -> Labels | None:
    plane, dims = labels.plane, _dims(node, labels)
    if any(varies(plane, dim) for dim in dims):
        if kind is not None:
            flow.look_across(plane, dims, kind)
        return _statistics(flow, node, plane, dims)
    return _squeezed(flow, node, plane, dims)


def _statistics(flow: Flow, node: Node, plane: Tensor, dims: tuple[int, ...]) -> Labels | None:
    """A number per head, say, goes with the head: its label is shared by the channels it came from."""
    rest = [dim for dim in range(plane.dim()) if dim not in dims]
    lines = plane.permute(*rest, *dims).reshape(int(np.prod([plane.shape[d] for d in rest])), -1).numpy()
    distinct, which = unique_rows(lines)
    if len(distinct) == 1:
        return None
    fresh = flow.store.fresh(len(distinct))
    flow.store.shared.append(np.stack([np.repeat(fresh, lines.shape[1]), distinct.ravel()], axis=1))
    return Labels((torch.from_numpy(fresh[which.ravel()]).reshape(flow.tape.shapes[node.outputs[0]]),))


def _squeezed(flow: Flow, node: Node, plane: Tensor, dims: tuple[int, ...]) -> Labels:
    for dim in dims:
        plane = plane.narrow(dim, 0, 1)
    return Labels((plane.reshape(flow.tape.shapes[node.outputs[0]]).clone(),))


def _dims(node: Node, labels: Labels) -> tuple[int, ...]:
    position = 2 if "norm" in node.name else 1
    given = node.args[position] if len(node.args) > position else node.kwargs.get("dim")
    everything = tuple(range(labels.plane.dim()))
    if given is None or given == [] or isinstance(given, bool):
        return everything
    return tuple(dim % len(everything) for dim in ([given] if isinstance(given, int) else given))


def _statistic(flow: Flow, node: Node) -> str:
    name = node.name.split(".")[-1]
    if name in ("var", "std", "var_mean"):
        return "variance"
    if name in ("linalg_vector_norm", "norm"):
        return "length"
    if name != "mean":
        return "unknown"
    maker = flow.makers.get(node.args[0].id)
    return "rms" if maker is not None and _is_square(maker) else "mean"


def _is_square(node: Node) -> bool:
    name = node.name.split(".")[-1]
    if name == "pow":
        return bool(node.args[1] == 2)
    return name == "square" or (name == "mul" and node.args[0] == node.args[1])


@rule("_softmax", "_log_softmax", "_safe_softmax")
def softmax(flow: Flow, node: Node) -> list[Labels | None]:
    """Probabilities along positions keep their head; a learned sink beside them belongs to it."""
    labels = flow.get(node.args[0])
    assert labels is not None
    plane, dim = labels.plane, node.args[1] % labels.plane.dim()
    heads = _heads(flow)
    if not varies(plane, dim):
        flow.softmaxes.append((np.unique(plane.numpy()), node.module))
        return [Labels((plane.clone(),))]
    is_head = torch.from_numpy(np.isin(flow.store.find(plane.numpy()), heads))
    if not bool(is_head.any(dim=dim).all()):
        flow.look_across(plane, (dim,), "softmax")
        return [Labels((plane.clone(),))]
    head = torch.where(is_head, plane, 0).amax(dim=dim, keepdim=True).expand(plane.shape)
    flow.store.unite(head.numpy(), plane.numpy())
    flow.softmaxes.append((np.unique(head.numpy()), node.module))
    return [Labels((head.clone(),))]


def _heads(flow: Flow) -> Any:
    scores = [flow.store.find(product.scores) for product in flow.store.products]
    return np.concatenate(scores) if scores else np.empty(0, dtype=np.int64)


@rule("native_layer_norm", "_fused_rms_norm", "native_group_norm")
def norm(flow: Flow, node: Node) -> list[Labels | None]:
    """A fused norm: statistics over the last dimensions, then weight and bias."""
    labels, shape = flow.get(node.args[0]), flow.tape.shapes[node.outputs[0]]
    assert labels is not None
    statistic = {"native_layer_norm": "variance", "_fused_rms_norm": "rms"}.get(
        node.name.split(".")[-1], "unknown"
    )
    count = len(node.args[1]) if isinstance(node.args[1], (list, tuple)) else 1
    flow.look_across(labels.plane, tuple(range(len(shape) - count, len(shape))), statistic)
    for operand in node.args[2:4]:
        vector = flow.get(operand) if isinstance(operand, Ref) else None
        if vector is not None:
            labels = meet(flow, labels, Labels(tuple(p.expand(shape) for p in vector.planes), vector.origin))
    return [Labels((labels.plane.clone(),))] + [None] * (len(node.outputs) - 1)


@rule("cumsum", "cumprod", "cummax", "logcumsumexp")
def running(flow: Flow, node: Node) -> list[Labels | None]:
    """Along positions the channels stay; along channels they mix."""
    labels = flow.get(node.args[0])
    assert labels is not None
    if varies(labels.plane, node.args[1]):
        flow.look_across(labels.plane, (node.args[1],), "unknown")
        return [None]
    return [Labels((labels.plane.clone(),))]


@rule("max", "min")
def extreme(flow: Flow, node: Node) -> list[Labels | None]:
    """The largest of a line of channels, and where it stands."""
    labels = flow.get(node.args[0])
    assert labels is not None
    if len(node.args) > 1 and isinstance(node.args[1], Ref):
        return pointwise(flow, node)
    values = _reduced(flow, node, labels, "choice")
    return [values] + [None] * (len(node.outputs) - 1)


@rule("topk", "sort", "argmax", "argmin", "argsort", "kthvalue")
def choice(flow: Flow, node: Node) -> list[Labels | None]:
    """Channels chosen by their values (experts): the values carry no label afterwards."""
    for ref in refs(node):
        labels = flow.get(ref)
        if labels is not None:
            flow.look_across(labels.plane, (labels.plane.dim() - 1,), "choice")
    return [None] * len(node.outputs)
