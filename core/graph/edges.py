"""Which parameter's output flows into which parameter, and through what: for drawing and for explaining."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.graph.flow import PRODUCTS, Flow, refs
from core.graph.layers import Segment, Walk
from core.graph.records import Edge
from core.graph.trace import Node, Ref

#: Operations that leave the numbers and their places as they are.
_SILENT = ("detach", "alias", "lift_fresh", "_to_copy", "clone", "contiguous", "_unsafe_view", "expand", "t")
#: Operations that add a parameter to a value rather than pass the value through it.
_ADDING = ("add", "sub")
Steps = tuple[tuple[str, int], ...]
#: A source is a parameter, or the number of a value that entered the layer.
Source = str | int
Sources = dict[Source, Steps]


@dataclass
class _Template:
    """What one layer does, with numbers in place of the values that enter it."""

    edges: dict[tuple[Source, str], Steps] = field(default_factory=dict)
    entering: list[int] = field(default_factory=list)
    leaving: dict[tuple[int, int], Sources] = field(default_factory=dict)


def find_edges(walk: Walk) -> tuple[Edge, ...]:
    """All edges of the model; a layer that equals an earlier layer gets the edges of that layer."""
    return _Finder(walk).run()


class _Finder:
    """Collects `paths`: (source, target) -> the operations between them."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.flow: Flow = walk.flow
        self.nodes = self.flow.tape.nodes
        self.last_use = walk.last_use
        self.sources: dict[int, Sources] = {}
        self.templates: dict[int, _Template] = {}
        self.paths: dict[tuple[str, str], Steps] = {}

    def run(self) -> tuple[Edge, ...]:
        segment_of = {segment.layer: segment for segment in self.walk.segments}
        for segment in self.walk.segments:
            if segment.layer is None or segment.layer not in self.walk.twins:
                template = self._follow(segment)
                if segment.layer is not None:
                    self.templates[segment.layer] = template
            else:
                twin = self.walk.twins[segment.layer]
                template = self._shifted(self.templates[twin], segment_of[twin], segment)
            self._apply(template, segment)
        return tuple(
            Edge(source, target, tuple(op for op, _ in steps), tuple(step for _, step in steps))
            for (source, target), steps in self.paths.items()
        )

    def _follow(self, segment: Segment) -> _Template:
        template = _Template()
        local: dict[int, Sources] = {}

        def look(ref: Ref) -> Sources:
            if ref.id in local:
                return local[ref.id]
            if not self.sources.get(ref.id):
                return {}
            template.entering.append(ref.id)
            local[ref.id] = {len(template.entering) - 1: ()}
            return local[ref.id]

        for position in range(segment.start, segment.stop):
            node = self.nodes[position]
            operands = refs(node)
            merged: Sources = {}
            for ref in operands:
                for source, steps in look(ref).items():
                    merged.setdefault(source, steps)
            origins = [o for ref in operands if (o := self._origin(ref)) is not None]
            flows = self._step(node, position, merged, origins, template)
            for slot, value in enumerate(node.outputs):
                local[value] = flows
                if self.last_use.get(value, -1) >= segment.stop:
                    template.leaving[position - segment.start, slot] = flows
        return template

    def _origin(self, ref: Ref) -> str | None:
        labels = self.flow.values.get(ref.id)
        return labels.origin if labels is not None else None

    def _step(
        self, node: Node, position: int, merged: Sources, origins: list[str], template: _Template
    ) -> Sources:
        """The sources of what an operation writes; edges into the parameters it uses go to `template`."""
        name = node.name.split(".")[-1].rstrip("_")
        here = () if name in _SILENT else ((node.name, position),)
        through = {source: steps + here for source, steps in merged.items()}
        written = [value for value in node.outputs if value >= 0]
        if not origins or all(self._origin(Ref(value)) is not None for value in written):
            return through
        if name in PRODUCTS:
            main, aside = origins[-1], origins[:-1]
        elif name in _ADDING:
            main, aside = None, origins
        else:
            main, aside = origins[0], origins[1:]
        if main is not None:
            for source, steps in through.items():
                template.edges.setdefault((source, main), steps)
            through = {main: ()}
        for vector in aside:
            for source, steps in through.items():
                template.edges.setdefault((source, vector), steps + here if main else steps)
        return through if through else {origin: () for origin in origins}

    def _shifted(self, template: _Template, twin: Segment, segment: Segment) -> _Template:
        """The same layer at another place: only what enters and the names differ."""
        place = {}
        for a, b in zip(range(twin.start, twin.stop), range(segment.start, segment.stop), strict=True):
            pairs = zip(refs(self.nodes[a]), refs(self.nodes[b]), strict=True)
            place.update({theirs.id: ours.id for theirs, ours in pairs})
        to, shift = segment.layer, segment.start - twin.start
        assert to is not None

        def later(steps: Steps) -> Steps:
            return tuple((op, step + shift) for op, step in steps)

        def moved(source: Source) -> Source:
            return source if isinstance(source, int) else self.walk.moved(source, to)

        return _Template(
            {(moved(s), str(moved(t))): later(steps) for (s, t), steps in template.edges.items()},
            [place[value] for value in template.entering],
            {
                key: {moved(source): later(steps) for source, steps in sources.items()}
                for key, sources in template.leaving.items()
            },
        )

    def _apply(self, template: _Template, segment: Segment) -> None:
        """Put the real sources in place of what entered, and hand on what leaves."""
        entered = [self.sources.get(value, {}) for value in template.entering]
        for (source, target), steps in template.edges.items():
            for real, before in self._real(source, entered).items():
                self.paths.setdefault((str(real), target), before + steps)
        for (offset, slot), sources in template.leaving.items():
            value = self.nodes[segment.start + offset].outputs[slot]
            own: Sources = {source: steps for source, steps in sources.items() if isinstance(source, str)}
            passed = {
                real: before + steps
                for source, steps in sources.items()
                for real, before in self._real(source, entered).items()
            }
            # What comes out of a layer is said to come from that layer: the rest follows step by step.
            self.sources[value] = own or passed

    def _real(self, source: Source, entered: list[Sources]) -> Sources:
        return entered[source] if isinstance(source, int) else {source: ()}
