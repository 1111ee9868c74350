"""What couples two parameters: the operations between them, and the order in which pruning spreads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from pruneviz.figures.render import render
from pruneviz.figures.states import paragraph_html

if TYPE_CHECKING:
    from core.graph.records import Graph
    from pruneviz.figures.structure import Link, Slice


def spreading(slices: Sequence[Slice], links: Sequence[Link]) -> list[int | None]:
    """For each slice when it is reached: 1 for the trigger, 2 for the first after it, …; None if it stays.

    Pruning spreads along links both ways, the nearest first; what no link reaches comes last.
    """
    near: dict[int, list[int]] = {i: [] for i, part in enumerate(slices) if not part.stays}
    for link in links:
        if link.source in near and link.target in near:
            near[link.source].append(link.target)
            near[link.target].append(link.source)
    starts = sorted(near, key=lambda i: not slices[i].trigger)
    reached: list[int] = []
    for start in starts:  # the trigger first, then whatever it does not reach
        queue = [start] if start not in reached else []
        while queue:
            here = queue.pop(0)
            if here not in reached:
                reached.append(here)
                queue += near[here]
    return [reached.index(i) + 1 if i in near else None for i in range(len(slices))]


@dataclass(frozen=True)
class Step:
    """One parameter (`kind` is `parameter`) or operation (`operation`) on the path; `times` in a row."""

    kind: str
    name: str
    times: int = 1


def path_info(graph: Graph, first: str, second: str) -> list[Step]:
    """The path between two parameters, repeated operations told once. Raises UnknownNameError."""
    from core.graph.view import path_between  # networkx is slow to import

    steps: list[Step] = []
    for name in path_between(graph, first, second):
        kind = "parameter" if name in graph.parameters else "operation"
        shown = name if kind == "parameter" else name.removeprefix("aten.").strip("_")
        if steps and (steps[-1].kind, steps[-1].name) == (kind, shown):
            steps[-1] = Step(kind, shown, steps[-1].times + 1)
        else:
            steps.append(Step(kind, shown))
    return steps


def path_html(steps: list[Step], first: str, second: str) -> Markup:
    """The path as a list that wraps."""
    if not (first and second):
        return paragraph_html("Choose two parameters, here or in the drawing.")
    if not steps:
        return paragraph_html(f"No data flows between {first} and {second} inside this model.", "note")
    count = sum(step.times for step in steps if step.kind == "operation")
    return render("path.html", steps=steps, count=count)
