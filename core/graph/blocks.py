"""Blocks: what the residual stream can do without, found in the recorded pass.

A block is a term that a decoder layer adds to the stream, be it made by one module or by several. It can go
if nothing else reads what its modules make; in their place stands what hands the stream on. A layer can go if
its output is its input and terms that can go, all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from core.graph.calls import Argument, Call
from core.graph.layers import Walk
from core.graph.records import Bypass, Gives, Group, Kind, Member
from core.graph.stream import LayerFlow, Sum, Term, Version
from core.graph.units import Parts


@dataclass(frozen=True)
class _Block:
    """Terms that go together, and their kind."""

    kind: Kind
    terms: tuple[Term, ...]

    @property
    def cone(self) -> frozenset[int]:
        """All operations that compute the terms."""
        return frozenset().union(*(term.cone for term in self.terms))


class _Refused(Exception):
    """Why a layer or a block cannot go."""


def add_blocks(walk: Walk, parts: Parts) -> None:
    """Add the blocks of every layer that was followed to what was found, or the reason why it has none."""
    for number in sorted({s.layer for s in walk.segments if s.layer is not None} - set(walk.twins)):
        try:
            groups = list(_Finder(walk, parts, number).run())
        except _Refused as why:
            parts.not_prunable.append({"kind": "layer", "layer": number, "reason": str(why)})
            continue
        parts.groups += groups
        for group in groups:
            if group.reason is not None:
                parts.not_prunable.append({"kind": group.kind, "layer": number, "reason": group.reason})


class _Finder:
    """Finds the blocks of one layer."""

    def __init__(self, walk: Walk, parts: Parts, number: int) -> None:
        self.walk, self.number, self.name = walk, number, walk.layers[number]
        self.parts = parts
        tape = walk.flow.tape
        calls = [call for call in tape.calls if call.module == self.name]
        if len(calls) != 1:
            raise _Refused(f"'{self.name}' runs {len(calls)} times in one pass")
        self.flow = LayerFlow(tape, calls[0], walk.last_use)
        self.inside = [call for call in tape.calls if call.within(calls[0]) and call.stop > call.start]
        self.adding: set[int | None] = set()
        self.attentions = {a.module: a for a in parts.attentions if a.layer == number}

    def run(self) -> Iterator[Group]:
        """The groups of the layer. Raises _Refused where its output is no sum with its input."""
        blocks = [_Block(self._kind(term), (term,)) for term in self._terms()]
        names: dict[Version, tuple[Kind, str]] = {}
        for block in blocks:
            taken = sum(kind == block.kind for kind, _ in names.values())
            tail = f".{taken}" if taken else ""
            names[block.terms[0].version] = (block.kind, f"L{self.number:02d}.{block.kind}{tail}")
        for block in blocks:
            seen = {v for stream in block.terms[0].reads for v in self.flow.stream[stream]}
            reads = tuple(name for version, (_, name) in names.items() if version in seen)
            yield self._group(block, names[block.terms[0].version][1], blocks, reads)
        whole = _Block("layer", tuple(term for block in blocks for term in block.terms))
        yield self._group(whole, f"L{self.number:02d}.layer", [whole], ())

    def _terms(self) -> list[Term]:
        """What is added to the stream, in the order in which it is added."""
        call = self.flow.call
        output = (
            self.flow.taken_apart(self.flow.version(call.outputs[0], call.stop)) if call.outputs else None
        )
        if output is None or not output.stream:
            where = self._where(call.outputs[0]) if call.outputs else ""
            raise _Refused(
                f"the output of '{self.name}' is not its input and something that is added to it{where}"
            )
        versions = self._along(output)
        if not versions:
            raise _Refused(f"'{self.name}' adds nothing to its input")
        return [self.flow.term(version) for version in versions]

    def _where(self, value: int) -> str:
        maker = self.flow.node(self.flow.version(value, self.flow.call.stop))
        return f": it is made by {maker.name} in module '{maker.module}'" if maker is not None else ""

    def _along(self, total: Sum) -> tuple[Version, ...]:
        """The terms of a sum with the stream in it; every partial sum is noted as the stream."""
        carrying = [part for part in total.parts if part.stream]
        if len(carrying) > 1:
            raise _Refused(f"'{self.name}' adds its input to itself")
        before = self._along(carrying[0]) if carrying else ()
        self.flow.stream[total.version] = before
        added = [v for part in total.parts if not part.stream for v in self._apart(part)]
        terms = self.flow.stream[total.version] = (*before, *added)
        self.adding.add(total.version[1])
        return terms

    def _apart(self, part: Sum) -> list[Version]:
        """The terms of a sum without the stream: attention and the rest are told apart, nothing else is."""
        modules = tuple(self.attentions)
        if not part.parts:
            return [part.version]
        inner = [v for each in part.parts for v in self._apart(each)]
        if len({self.flow.attends(version, modules) for version in inner}) == 1:
            return [part.version]
        self.adding.add(part.version[1])
        return inner

    def _kind(self, term: Term) -> Kind:
        if self.flow.attends(term.version, tuple(self.attentions)):
            return "attention_block"
        return "ffn_block"

    def _group(self, block: _Block, name: str, blocks: Sequence[_Block], reads: tuple[str, ...]) -> Group:
        group = Group(name, block.kind, self.number, 1, (), reads=reads)
        others = frozenset().union(*(other.cone for other in blocks if other is not block))
        try:
            calls = self._outermost(block, others)
            bypass = tuple(each for _, each in calls)
            self._check_ends(block, calls)
            members = self._members(block, [call for call, _ in calls])
        except _Refused as why:
            return replace(group, prunable=False, reason=str(why))
        return replace(group, members=members, bypass=bypass)

    def _outermost(self, block: _Block, others: frozenset[int]) -> list[tuple[Call, Bypass]]:
        """The outermost modules that work for a block alone, in order, and what stands in their place."""
        chosen: list[tuple[Call, Bypass]] = []
        for call in sorted(self.inside, key=lambda call: (call.start, -call.stop)):
            if any(call.within(other) or call.start < other.stop for other, _ in chosen):
                continue
            stand_in = self._stand_in(call, block) if self._works_for(call, block, others) else None
            if stand_in is not None:
                chosen.append((call, stand_in))
        return chosen

    def _works_for(self, call: Call, block: _Block, others: frozenset[int]) -> bool:
        """Whether what runs in a call is for this block, and read by nothing beside it."""
        inside = range(call.start, call.stop)
        adding = self.adding
        ours = {version[1] for version in self.flow.stream if self._adds(version, block)}
        if any(position in others or (position in adding and position not in ours) for position in inside):
            return False
        if not any(position in block.cone for position in inside):
            return False
        outside = {
            r for p in inside for r in self.flow.readers.get(p, ()) if r not in inside and p not in adding
        }
        return all(reader in block.cone or reader in adding for reader in outside)

    def _adds(self, stream: Version, block: _Block) -> bool:
        """Whether a version of the stream is an earlier one with terms of the block alone added to it."""
        own = {term.version for term in block.terms}
        before = [
            self.flow.stream[v] for v in self.flow.sources.get(stream[1] or -1, ()) if v in self.flow.stream
        ]
        return bool(before) and set(self.flow.stream[stream]) - set(before[0]) <= own

    def _stand_in(self, call: Call, block: _Block) -> Bypass | None:
        """What stands in the place of a module, or None if nothing could."""
        if not call.outputs or call.outputs[0] < 0:
            return None
        output = self.flow.version(call.outputs[0], call.stop)
        onward = output in self.flow.stream
        silent = any(output in term.zero for term in block.terms)
        gives: Gives = "stream" if onward else "zeros" if silent else "same"
        argument = self._without(call, output, block) if onward else self._like(call)
        if argument is None:
            return None
        cache = self.number if self._attention_in(call) else None
        return Bypass(call.module, gives, argument, call.several, cache)

    def _without(self, call: Call, output: Version, block: _Block) -> Argument | None:
        """The argument that is the stream without the block."""
        own = {term.version for term in block.terms}
        left = set(self.flow.stream[output]) - own
        for key, value in call.arguments.items():
            handed = self.flow.version(value, call.start)
            if handed in self.flow.stream and set(self.flow.stream[handed]) - own == left:
                return key
        return None

    def _like(self, call: Call) -> Argument | None:
        """An argument as large as the output, else the first."""
        shapes, wanted = self.flow.tape.shapes, self.flow.tape.shapes[call.outputs[0]]
        alike = [key for key, value in call.arguments.items() if shapes[value] == wanted]
        return next(iter([*alike, *call.arguments]), None)

    def _attention_in(self, call: Call) -> bool:
        return any(name == call.module or name.startswith(call.module + ".") for name in self.attentions)

    def _check_ends(self, block: _Block, calls: Sequence[tuple[Call, Bypass]]) -> None:
        """Raises _Refused where no module gives a term of the block, so that it cannot be silenced."""
        for term in block.terms:
            outputs = [(self.flow.version(call.outputs[0], call.stop), each) for call, each in calls]
            ends = any(
                output in term.zero or term.version in self.flow.stream.get(output, ())
                for output, _ in outputs
            )
            if not ends:
                maker = self.flow.node(term.version)
                where = f"{maker.name} in module '{maker.module}'" if maker is not None else "something"
                raise _Refused(f"what {where} adds to the stream is no module's output alone")

    def _members(self, block: _Block, calls: Sequence[Call]) -> tuple[Member, ...]:
        """All parameters of these modules, whole. Raises _Refused where one is read elsewhere, too."""
        inside = {position for call in calls for position in range(call.start, call.stop)}
        readers = [versions for at, versions in self.flow.sources.items() if at not in inside]
        beside = {value for versions in readers for value, _ in versions}
        members = []
        for value, name in self.flow.tape.parameters.items():
            if not any(name.startswith(call.module + ".") for call in calls):
                continue
            later = self.walk.last_use.get(value, -1) >= self.flow.call.stop
            if later or value in beside or self.walk.layer_of(name) != self.number:
                raise _Refused(f"its parameter {name} is read elsewhere, too")
            size = self.flow.tape.shapes[value][0]
            members.append(Member(name, 0, "layer1", size, ((0, size, 1),)))
        if block.kind == "ffn_block" and not self._has_channels({member.parameter for member in members}):
            raise _Refused("it is neither attention nor a feed-forward network, as far as can be told")
        return tuple(members)

    def _has_channels(self, names: set[str]) -> bool:
        """Whether the channels of a feed-forward network, or its experts, are among these parameters."""
        groups = (group for group in self.parts.groups if group.kind in ("ffn_channel", "expert"))
        return any(member.parameter in names for group in groups for member in group.members)
