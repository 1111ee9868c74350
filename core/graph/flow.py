"""Follow the labels through a recorded forward pass, one operation at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.graph.labels import Across, Ints, LabelStore, compact, rows_along, unique_rows
from core.graph.trace import Node, Ref, Tape


@dataclass
class Labels:
    """The labels of one value.

    Attributes:
        planes: one integer tensor of the value's shape for an activation; for a parameter one per
            dimension, each with the labels of that dimension, expanded over the others.
        origin: the parameter this value is, perhaps rearranged; None for an activation.
    """

    planes: tuple[Tensor, ...]
    origin: str | None = None

    def blank(self) -> bool:
        """Whether no element carries a label."""
        return not any(bool(compact(plane).any()) for plane in self.planes)

    @property
    def plane(self) -> Tensor:
        """The only plane of an activation or a vector."""
        return self.planes[0]


@dataclass
class Flow:
    """The state of the walk: labels per value (absent or None: no channel), and what has been learned.

    Attributes:
        macs: how often each element of a parameter is multiplied per token.
        softmaxes: the labels each softmax ran over, and its module.
        makers: value -> the operation that wrote it last.
        lost: value -> the operation after which its channels could not be followed any more;
        lost_memory: the same for memory such a value was written into.
    """

    tape: Tape
    store: LabelStore = field(default_factory=LabelStore)
    values: dict[int, Labels | None] = field(default_factory=dict)
    macs: dict[str, float] = field(default_factory=dict)
    softmaxes: list[tuple[Ints, str]] = field(default_factory=list)
    makers: dict[int, Node] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)
    lost_memory: dict[int, str] = field(default_factory=dict)
    position: int = 0
    node: Node | None = None

    def get(self, operand: Any) -> Labels | None:
        """Labels of an operand; a parameter gets its labels when it is first looked at."""
        if not isinstance(operand, Ref):
            return None
        if operand.id not in self.values and operand.id in self.tape.parameters:
            self.values[operand.id] = self._parameter(operand.id)
        return self.values.get(operand.id)

    def shape(self, operand: Any) -> tuple[int, ...]:
        """Shape of an operand; () for a number."""
        return self.tape.shapes[operand.id] if isinstance(operand, Ref) else ()

    def own_shape(self, ref: Ref) -> tuple[int, ...]:
        """Shape of an operand before it was spread out: 1 along the dimensions it is the same along."""
        shape = list(self.shape(ref))
        maker = self.makers.get(ref.id)
        if maker is not None and maker.name.split(".")[-1] == "expand":
            before = self.own_shape(maker.args[0])
            for dim in range(1, len(shape) + 1):
                shape[-dim] = before[-dim] if dim <= len(before) else 1
        return tuple(shape)

    def step(self, position: int) -> None:
        """Run one operation on the labels of its operands."""
        node = self.tape.nodes[position]
        self.position, self.node = position, node
        operands = refs(node)
        for output in node.outputs:
            self.makers[output] = node
        if node.name.split(".")[-1] in _FACTORIES:
            # Only the shape of an operand is looked at. What is written later needs labels to write into.
            shape = self.tape.shapes[node.outputs[0]]
            self.values[node.outputs[0]] = Labels((torch.zeros(shape, dtype=torch.long),))
            return
        labelled = [ref for ref in operands if (labels := self.get(ref)) is not None and not labels.blank()]
        lost = next((why for ref in operands if (why := self._lost(ref)) is not None), None)
        if not labelled:
            self._blank(node, operands)
            self._lose(node, lost)
            return
        results = self._apply(node)
        weighted = node.op._schema.name.split("::")[-1] in PRODUCTS and any(
            labels is not None and labels.origin is not None for labels in map(self.get, labelled)
        )
        # A matrix of the model gives its outputs labels of their own, whatever goes in.
        if lost is not None and not weighted:
            results = self._meet_lost(node, labelled, results, lost)
        self._write(node, results)

    def _apply(self, node: Node) -> list[Labels | None]:
        try:
            return rule_for(node)(self, node)
        except RuntimeError:
            # Some operations refuse integers: what they do to channels is not known.
            return _RULES["*unknown"](self, node)

    def _blank(self, node: Node, operands: list[Ref]) -> None:
        """Where no operand has a label: views of memory that is filled later become views of its labels."""
        if any(self.get(ref) is not None for ref in operands) and _is_view(node):
            self._write(node, rule_for(node)(self, node))

    def _lost(self, ref: Ref) -> str | None:
        labels = self.values.get(ref.id)
        memory = None if labels is None else self.lost_memory.get(_memory(labels.planes[0]))
        return self.lost.get(ref.id, memory)

    def _lose(self, node: Node, reason: str | None) -> None:
        if reason is None:
            return
        for output in node.outputs:
            labels = self.values.get(output)
            if labels is None:
                self.lost[output] = reason
            else:
                # Written into memory of which there are other views.
                self.lost_memory[_memory(labels.planes[0])] = reason

    def _meet_lost(
        self, node: Node, labelled: list[Ref], results: list[Labels | None], lost: str
    ) -> list[Labels | None]:
        """Note that channels which meet others that could not be followed cannot go on their own."""
        for ref in labelled:
            labels = self.get(ref)
            for plane in labels.planes if labels is not None else ():
                self.flag(plane, "unknown", lost)
        if all(labels is not None and labels.origin is not None for labels in map(self.get, labelled)):
            self._lose(node, lost)
            return [None] * len(results)
        return results

    def _write(self, node: Node, results: list[Labels | None]) -> None:
        name = node.op._schema.name
        inplace = name.endswith("_") and not name.endswith("__")
        for output, labels in zip(node.outputs, results, strict=False):
            current = self.values.get(output)
            if inplace and current is not None and labels is not None:
                # Views made earlier share this memory and must see the new labels.
                pairs = zip(current.planes, labels.planes, strict=True)
                current.planes = tuple(_written(old, new) for old, new in pairs)
            else:
                self.values[output] = labels

    def look_across(self, labels: Tensor, dims: tuple[int, ...], kind: str, what: str | None = None) -> None:
        """Note that an operation looks at all labels along `dims` together."""
        assert self.node is not None
        lines = rows_along(labels, dims)
        lines, _ = unique_rows(self.store.find(lines))
        lines = lines[(lines != 0).any(axis=1)]
        if len(lines):
            shape = tuple(labels.shape[dim] for dim in dims) if kind == "grid" else ()
            self.store.across.append(Across(lines, kind, self.node.module, what or self.node.name, shape))

    def flag(self, labels: Tensor, kind: str, what: str | None = None) -> None:
        """Note that an operation looks at all these labels together, wherever they stand."""
        assert self.node is not None
        classes = np.unique(self.store.find(np.unique(compact(labels).numpy())))
        if len(classes := classes[classes != 0]):
            self.store.across.append(Across(classes[None], kind, self.node.module, what or self.node.name))

    def real(self, operand: Any) -> Tensor | None:
        """The numbers in an index, where they follow from buffers and constants alone; else None."""
        if not isinstance(operand, Ref):
            return None
        numbers = self.tape.constants.get(operand.id)
        if numbers is not None:
            return numbers
        node = self.makers.get(operand.id)
        if node is None or len(node.outputs) != 1:
            return None
        inputs = {ref.id: self.real(ref) for ref in refs(node)}
        if any(value is None for value in inputs.values()):
            return None
        args, kwargs = substitute(node, lambda ref: inputs[ref.id])
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        value: Tensor = node.op(*args, **kwargs)
        self.tape.constants[operand.id] = value
        return value

    def _parameter(self, value: int) -> Labels:
        name, shape = self.tape.parameters[value], self.tape.shapes[value]
        planes = []
        for dim, size in enumerate(shape):
            labels = torch.from_numpy(self.store.of_parameter(name, dim, size))
            planes.append(labels.reshape([-1 if d == dim else 1 for d in range(len(shape))]).expand(shape))
        return Labels(tuple(planes), origin=name)


PRODUCTS = ("mm", "bmm", "mv", "addmm", "baddbmm", "addbmm", "_grouped_mm", "grouped_mm_fallback")
Rule = Callable[[Flow, Node], "list[Labels | None]"]
_RULES: dict[str, Rule] = {}
_FACTORIES = (
    "empty", "new_empty", "empty_like", "zeros", "new_zeros", "zeros_like",
    "ones", "new_ones", "ones_like", "full", "new_full", "full_like", "rand_like", "randn_like",
)  # fmt: skip


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for these ATen operations, without namespace, overload or trailing underscore."""

    def register(function: Rule) -> Rule:
        for name in names:
            _RULES[name] = function
        return function

    return register


def rule_for(node: Node) -> Rule:
    """The rule of an operation: its own, or that of all elementwise ones, or that of all views."""
    name = node.op._schema.name.split("::")[-1]
    if name in _RULES:
        return _RULES[name]
    if name.rstrip("_") in _RULES:
        return _RULES[name.rstrip("_")]
    if torch.Tag.pointwise in node.op.tags:
        return _RULES["*pointwise"]
    if _is_view(node):
        return _RULES["*view"]
    return _RULES["*unknown"]


def _is_view(node: Node) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in node.op._schema.returns)


def refs(node: Node) -> list[Ref]:
    """All tensor operands of an operation, in order."""
    operands: list[Ref] = []

    def look(argument: Any) -> None:
        if isinstance(argument, Ref):
            operands.append(argument)
        elif isinstance(argument, (list, tuple)):
            for item in argument:
                look(item)

    look(node.args)
    look(list(node.kwargs.values()))
    return operands


def substitute(node: Node, by: Callable[[Ref], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of an operation with every operand replaced."""

    def swap(argument: Any) -> Any:
        if isinstance(argument, Ref):
            return by(argument)
        if isinstance(argument, (list, tuple)):
            return type(argument)(swap(item) for item in argument)
        return argument

    return swap(node.args), {key: swap(value) for key, value in node.kwargs.items()}


def _memory(plane: Tensor) -> int:
    return plane.untyped_storage().data_ptr()


def _written(old: Tensor, new: Tensor) -> Tensor:
    if old.shape != new.shape or any(s == 0 and n > 1 for s, n in zip(old.stride(), old.shape, strict=True)):
        return new
    return old.copy_(new)
