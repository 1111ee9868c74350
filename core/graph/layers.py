"""Find the decoder layers, and follow each distinct one only once.

Two layers are the same when they run the same operations on the same shapes in the same order, fed with
labels of the same classes. That is checked operation by operation, so copying what was learned is exact.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from torch import nn

from core.graph.flow import Flow, Labels, refs, substitute
from core.graph.labels import Ints
from core.graph.trace import Ref, Tape


@dataclass(frozen=True)
class Segment:
    """Nodes `start` to `stop` (exclusive) of the tape; `layer` is None between the layers."""

    layer: int | None
    start: int
    stop: int


@dataclass
class Walk:
    """The flow after all segments.

    Attributes:
        twins: layer -> the earlier layer it equals.
        stream: classes of the residual channels, as they enter the first decoder layer.
        segments: in order.
        last_use: value -> the last operation that reads it.
    """

    flow: Flow
    layers: tuple[str, ...]
    segments: tuple[Segment, ...]
    last_use: dict[int, int]
    twins: dict[int, int] = field(default_factory=dict)
    stream: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def layer_of(self, name: str) -> int | None:
        """The decoder layer a module or parameter lies in."""
        return layer_of(name, self.layers)

    def moved(self, name: str, to: int) -> str:
        """The name of the same module or parameter in layer `to`; names outside all layers stay."""
        layer = self.layer_of(name)
        return name if layer is None else self.layers[to] + name.removeprefix(self.layers[layer])


def layer_of(name: str, layers: tuple[str, ...]) -> int | None:
    """The position of the layer `name` lies in, or None."""
    if not layers:
        return None
    stem = layers[0].rsplit(".", 1)[0] + "."
    if not name.startswith(stem):
        return None
    number = name[len(stem) :].split(".", 1)[0]
    return layers.index(stem + number) if stem + number in layers else None


def decoder_layers(model: nn.Module, tape: Tape) -> tuple[str, ...]:
    """The names of the decoder layers: the outermost list of modules that ran and holds most parameters."""
    ran = {node.module for node in tape.nodes}
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    best: tuple[int, tuple[str, ...]] = (0, ())
    for name, module in lists:
        if any(name.startswith(other + ".") for other, _ in lists):
            continue
        children = tuple(f"{name}.{child}" for child, _ in module.named_children())
        if all(any(m == child or m.startswith(child + ".") for m in ran) for child in children):
            best = max(best, (sum(p.numel() for p in module.parameters()), children))
    return best[1]


def no_layers(model: nn.Module, tape: Tape, name: str) -> str:
    """Why no list of decoder layers was found: the largest that ran in part, and what of it did not."""
    ran = {node.module for node in tape.nodes}
    partly: dict[str, int] = {}
    for place, module in model.named_modules():
        children = dict(module.named_children()) if isinstance(module, nn.ModuleList) else {}
        idle = [n for n in children if not any(f"{m}.".startswith(f"{place}.{n}.") for m in ran)]
        if 0 < len(idle) < len(children):
            size = sum(p.numel() for p in module.parameters())
            text = (
                f"a pass over text runs {len(children) - len(idle)} of the {len(children)} layers in "
                f"'{place}', and not layer {', '.join(idle[:4])}{', …' * (len(idle) > 4)} "
                f"({type(children[idle[0]]).__name__}), which may read pictures or sound, so that what is "
                "coupled with them cannot be followed"
            )
            partly[text] = size
    if not partly:
        return f"'{name}' has no list of decoder layers that its forward pass runs through."
    return f"'{name}' cannot be pruned: {max(partly, key=partly.__getitem__)}."


def walk(tape: Tape, layers: tuple[str, ...]) -> Walk:
    """Follow the labels through the whole tape."""
    result = Walk(Flow(tape), layers, _segments(tape, layers), _last_uses(tape))
    seen: dict[Any, Segment] = {}
    runs = Counter(segment.layer for segment in result.segments)
    for segment in result.segments:
        # A layer that runs more than once is no twin of itself.
        once = segment.layer is not None and runs[segment.layer] == 1
        key = _fingerprint(result.flow, segment, layers) if once else None
        twin = seen.get(key) if key is not None else None
        if segment.layer is not None and not len(result.stream):
            result.stream = _incoming(result.flow, segment)
        if twin is not None and _copy(result.flow, twin, segment, result.last_use):
            assert segment.layer is not None and twin.layer is not None
            result.twins[segment.layer] = twin.layer
            continue
        for position in range(segment.start, segment.stop):
            result.flow.step(position)
        if key is not None:
            seen.setdefault(key, segment)
    result.flow.store.settle()
    return result


def _segments(tape: Tape, layers: tuple[str, ...]) -> tuple[Segment, ...]:
    marks = [layer_of(node.module, layers) for node in tape.nodes]
    edges = [0] + [i for i in range(1, len(marks)) if marks[i] != marks[i - 1]] + [len(marks)]
    return tuple(Segment(marks[a], a, b) for a, b in pairwise(edges) if b > a)


def _last_uses(tape: Tape) -> dict[int, int]:
    """The last operation that reads each value; the logits are read after all of them."""
    last = {ref.id: position for position, node in enumerate(tape.nodes) for ref in refs(node)}
    last[tape.result] = len(tape.nodes)
    return last


def _incoming(flow: Flow, segment: Segment) -> Ints:
    """The classes of the first labelled activation a layer reads."""
    for node in flow.tape.nodes[segment.start : segment.stop]:
        for ref in refs(node):
            labels = flow.get(ref)
            if labels is not None and labels.origin is None:
                classes = np.unique(flow.store.find(labels.plane.numpy()))
                return classes[classes != 0]
    return np.empty(0, dtype=np.int64)


def _fingerprint(flow: Flow, segment: Segment, layers: tuple[str, ...]) -> Any:
    """What a layer does, in terms that do not name the layer."""
    assert segment.layer is not None
    prefix, tape, local = layers[segment.layer], flow.tape, dict[int, int]()

    def describe(ref: Ref) -> Any:
        if ref.id in local:
            return ("local", local[ref.id])
        name = tape.parameters.get(ref.id) or tape.buffers.get(ref.id)
        if name is not None:
            fixed = tape.constants.get(ref.id)
            numbers = fixed.numpy().tobytes() if fixed is not None else b""
            return ("named", name.removeprefix(prefix), tape.shapes[ref.id], numbers)
        labels = flow.get(ref)
        if labels is None:
            return ("plain", tape.shapes[ref.id])
        return ("labels", tuple(flow.store.find(p.numpy()).tobytes() for p in labels.planes))

    lines = []
    for node in tape.nodes[segment.start : segment.stop]:
        args, kwargs = substitute(node, describe)
        written = tuple(tape.shapes[value] for value in node.outputs if value >= 0)
        # Factors such as 1/sqrt(layer) may differ: they do not change what is coupled.
        lines.append((node.op, _plain((args, kwargs)), node.module.removeprefix(prefix), written))
        for value in node.outputs:
            local.setdefault(value, len(local))
    return tuple(lines)


def _plain(argument: Any) -> Any:
    if isinstance(argument, (list, tuple)):
        return tuple(_plain(item) for item in argument)
    if isinstance(argument, dict):
        return tuple((key, _plain(value)) for key, value in argument.items())
    return "float" if isinstance(argument, float) else argument


def _copy(flow: Flow, twin: Segment, segment: Segment, last_use: dict[int, int]) -> bool:
    """Give what leaves `segment` the labels its twin gave; False if those are not the labels of an input."""
    inputs: list[Labels] = []
    for node in flow.tape.nodes[segment.start : segment.stop]:
        inputs += [
            labels for ref in refs(node) if (labels := flow.values.get(ref.id)) and labels.origin is None
        ]
    leaving: dict[int, Labels | None] = {}
    for a, b in zip(range(twin.start, twin.stop), range(segment.start, segment.stop), strict=True):
        pairs = zip(flow.tape.nodes[a].outputs, flow.tape.nodes[b].outputs, strict=True)
        for theirs, ours in pairs:
            if last_use.get(ours, -1) < segment.stop:
                continue
            labels = flow.values.get(theirs)
            same = None if labels is None else next((i for i in inputs if _equal(flow, i, labels)), None)
            if labels is not None and same is None:
                return False
            leaving[ours] = same
    flow.values.update(leaving)
    return True


def _equal(flow: Flow, left: Labels, right: Labels) -> bool:
    a, b = left.planes[0], right.planes[0]
    return a.shape == b.shape and bool((flow.store.find(a.numpy()) == flow.store.find(b.numpy())).all())
