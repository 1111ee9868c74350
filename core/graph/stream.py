"""How one decoder layer's output comes about: its input, and what is added to it on the way.

The output is taken apart, addition by addition, until what is left is the input, which is the residual
stream, and terms that something computed. What computes a term is its *cone*: all that it depends on, back to
where the stream or something from outside the layer is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from core.graph.calls import Call
from core.graph.flow import refs
from core.graph.trace import Node, Ref, Tape

#: A value, and the operation that wrote it last: None where it came from outside the layer.
Version = tuple[int, int | None]
_SAME = (
    "alias",
    "detach",
    "clone",
    "_to_copy",
    "contiguous",
    "lift_fresh",
    "view",
    "_unsafe_view",
    "reshape",
)
#: Operations of one activation that make zeros of zeros.
_ZERO = (*_SAME, "mul", "div", "neg", "dropout", "native_dropout", "squeeze", "unsqueeze", "transpose", "t")
_WEIGHT = "_softmax", "softmax"


@dataclass(frozen=True)
class Sum:
    """A value as a sum. Attributes: `parts`: what is added; `stream`: whether the layer's input is in it."""

    version: Version
    parts: tuple[Sum, ...] = ()
    stream: bool = False


@dataclass(frozen=True)
class Term:
    """Something that is added to the stream.

    Attributes:
        version: of the value; cone: the operations that compute it and nothing outside the layer.
        zero: those of them that make zeros of zeros, from the last one back.
        reads: the versions of the stream that it is computed from.
    """

    version: Version
    cone: frozenset[int]
    zero: frozenset[Version]
    reads: frozenset[Version]


@dataclass
class LayerFlow:
    """One layer's operations, by what they read and when it was written.

    Attributes:
        call: of the layer; last_use: value -> the last operation that reads it, of the whole pass.
        sources: operation -> the versions of its operands.
        readers: operation -> the operations that read what it wrote, those after the layer among them.
        stream: versions of the stream -> the terms in it, in the order in which they were added.
    """

    tape: Tape
    call: Call
    last_use: dict[int, int]
    sources: dict[int, list[Version]] = field(default_factory=dict)
    readers: dict[int, set[int]] = field(default_factory=dict)
    stream: dict[Version, tuple[Version, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        writer: dict[int, int] = {}
        root: dict[int, int] = {}
        also: dict[int, list[int]] = {}  # what was written into memory that others have a view of
        self._written_at: dict[int, list[int]] = {}
        for position in range(self.call.start, self.call.stop):
            node = self.tape.nodes[position]
            mine: list[Version] = []
            for ref in refs(node):
                mine.append((ref.id, writer.get(ref.id)))
                mine += [(ref.id, earlier) for earlier in also.get(root.get(ref.id, ref.id), ())]
            for _, earlier in mine:
                if earlier is not None:
                    self.readers.setdefault(earlier, set()).add(position)
            self.sources[position] = mine
            for output in (value for value in node.outputs if value >= 0):
                if _is_view(node) and isinstance(node.args[0], Ref):
                    root[output] = root.get(node.args[0].id, node.args[0].id)
                elif output in root and output in {ref.id for ref in refs(node)}:
                    also.setdefault(root[output], []).append(position)
                writer[output] = position
                self._written_at.setdefault(output, []).append(position)
        for value, position in writer.items():
            if (later := self.last_use.get(value, -1)) >= self.call.stop:
                self.readers.setdefault(position, set()).add(later)

    def version(self, value: int, at: int) -> Version:
        """A value as it stands before an operation."""
        earlier = [position for position in self._written_at.get(value, ()) if position < at]
        return value, earlier[-1] if earlier else None

    def node(self, version: Version) -> Node | None:
        """The operation that wrote a version inside the layer."""
        return None if version[1] is None else self.tape.nodes[version[1]]

    def taken_apart(self, version: Version) -> Sum:
        """A value as a sum, back to the layer's own arguments."""
        node = self.node(version)
        if node is None:
            return Sum(version, stream=version[0] in self.call.arguments.values())
        name = _name(node)
        operands = [v for v in self.sources[version[1] or 0] if v[0] in {ref.id for ref in refs(node)}]
        if name in _SAME and operands:
            inner = self.taken_apart(operands[0])
            if inner.stream or len(inner.parts) > 1:
                return Sum(version, (inner,), inner.stream)
        if name == "add" and len(operands) == 2 and node.kwargs.get("alpha", 1) == 1:
            known = self.tape.parameters.keys() | self.tape.buffers.keys()
            if not any(value in known for value, _ in operands):
                parts = tuple(map(self.taken_apart, operands))
                return Sum(version, parts, any(part.stream for part in parts))
        return Sum(version)

    def term(self, version: Version) -> Term:
        """What computes a term; the versions of the stream must be known by now."""
        cone, reads, todo = set[int](), set[Version](), [version]
        while todo:
            earlier = todo.pop()
            if earlier in self.stream:
                reads.add(earlier)
            elif earlier[1] is not None and earlier[1] not in cone:
                cone.add(earlier[1])
                todo += self.sources[earlier[1]]
        zero, last = {version}, version
        while (node := self.node(last)) is not None and _name(node) in _ZERO:
            active = [v for v in self.sources[last[1] or 0] if v[1] in cone]
            if len(active) != 1:
                break
            last = active[0]
            zero.add(last)
        return Term(version, frozenset(cone), frozenset(zero), frozenset(reads))

    def attends(self, version: Version, modules: tuple[str, ...]) -> bool:
        """Whether the softmax of an attention is among what computes a value."""
        nodes = (self.tape.nodes[position] for position in self.term(version).cone)
        return any(_name(node) in _WEIGHT and node.module.startswith(modules) for node in nodes)


def _name(node: Node) -> str:
    return node.name.split(".")[-1].rstrip("_")


def _is_view(node: Node) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in node.op._schema.returns)
