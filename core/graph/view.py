"""The dependency graph as networkx graphs: for drawing coupled structures and for explaining them."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise

import networkx as nx

from core.errors import UnknownNameError
from core.graph.records import Edge, Graph


def coupled_structure(graph: Graph, group_id: str, unit: int) -> nx.DiGraph:
    """Everything that goes with one unit, and what it is connected to (LLM-Pruner, Figure 2).

    Returns:
        One node per parameter, by name. Of those that lose something: `pruned` True, `dim`, `indices`,
        `role`, `at`, and `trigger` True for the first one. Of all: `module`, `layer`, `shape`. Every edge has
        `ops`, `strength` (see `strengths`) and `pruned`, True between two nodes that lose something.

    Raises:
        UnknownNameError: no such group or unit.
    """
    if group_id not in graph.by_id:
        raise UnknownNameError(f"There is no group '{group_id}' in {graph.model}.")
    group = graph.group(group_id)
    if not 0 <= unit < group.units:
        raise UnknownNameError(f"{group_id} has units 0 to {group.units - 1}, got {unit}.")
    drawn: nx.DiGraph = nx.DiGraph(group=group_id, unit=unit, type=group.type)
    for member in group.members:
        indices = [int(i) for i in member.index()[unit]]
        attributes = drawn.nodes.get(member.parameter)
        if attributes is not None and attributes["dim"] == member.dim:
            indices = sorted({*attributes["indices"], *indices})
        _add_node(drawn, graph, member.parameter, pruned=True)
        drawn.nodes[member.parameter].update(
            dim=member.dim,
            indices=indices,
            role=member.role,
            at=member.at,
            trigger=drawn.number_of_nodes() == 1,
        )
    _connect(drawn, graph)
    return drawn


def _connect(drawn: nx.DiGraph, graph: Graph) -> None:
    """Add the edges that touch what is drawn so far, all of it pruned, and the neighbours they lead to."""
    pruned = set(drawn.nodes)
    strength = strengths(graph)
    for edge in graph.edges:
        ends = edge.source, edge.target
        if pruned.isdisjoint(ends):
            continue
        for name in ends:
            if name not in drawn:
                _add_node(drawn, graph, name, pruned=False)
        drawn.add_edge(*ends, ops=edge.ops, pruned=pruned.issuperset(ends), strength=strength[ends])


def strengths(graph: Graph) -> dict[tuple[str, str], float]:
    """How strongly the target of each edge depends on its source.

    |In(N_i) and Out(N_j)| / (|In(N_i)| + |Out(N_j)|) with In and Out the connections that enter and leave a
    node, so one half is the most: N_j has no other output and N_i no other input, which is LLM-Pruner's rule.

    Source: Adaptive Estimation Fusion, Eq. 1. Read with neurons instead of connections in the two sets it
    would be 0 for neighbours.
    """
    entering = Counter(edge.target for edge in graph.edges)
    leaving = Counter(edge.source for edge in graph.edges)
    return {
        (edge.source, edge.target): 1.0 / (entering[edge.target] + leaving[edge.source])
        for edge in graph.edges
    }


def path_between(graph: Graph, parameter_a: str, parameter_b: str) -> list[str]:
    """How two parameters are coupled: names of parameters and of the ATen operations between them, in order.

    Where the data of both meet in one operation, the path ends and begins there, e.g. gate, silu, mul, up.
    An empty list where nothing connects them.

    Raises:
        UnknownNameError: no such parameter.
    """
    for name in (parameter_a, parameter_b):
        if name not in graph.parameters:
            some = ", ".join(list(graph.parameters)[:5])
            raise UnknownNameError(f"There is no parameter '{name}' in {graph.model}; there are {some}, …")
    links = _links(graph)
    if (
        parameter_a not in links
        or parameter_b not in links
        or not nx.has_path(links, parameter_a, parameter_b)
    ):
        return []
    names: list[str] = nx.shortest_path(links, parameter_a, parameter_b)
    path = names[:1]
    for left, right in pairwise(names):
        link = links.edges[left, right]
        path += [*(link["ops"] if link["start"] == left else link["ops"][::-1]), right]
    return path


def _links(graph: Graph) -> nx.Graph:
    """Parameters joined where data flows between them, or where data of both meets."""
    links: nx.Graph = nx.Graph()
    into: dict[str, list[Edge]] = {}
    for edge in graph.edges:
        links.add_edge(edge.source, edge.target, ops=edge.ops, start=edge.source)
        into.setdefault(edge.target, []).append(edge)
    for edges in into.values():
        for left, right in combinations(edges, 2):
            met = _met(left, right)
            if met and not links.has_edge(left.source, right.source):
                links.add_edge(left.source, right.source, ops=met, start=left.source)
    return links


def _met(left: Edge, right: Edge) -> tuple[str, ...]:
    """Operations from the source of one edge to where the data of both met, and back to the other source."""
    common = next((step for step in left.steps if step in right.steps), None)
    # Two readers of one parameter meet only in that parameter itself.
    if common is None or common == left.steps[-1]:
        return ()
    i, j = left.steps.index(common), right.steps.index(common)
    return (*left.ops[: i + 1], *right.ops[:j][::-1])


def _add_node(drawn: nx.DiGraph, graph: Graph, name: str, pruned: bool) -> None:
    parameter = graph.parameters[name]
    drawn.add_node(name, pruned=pruned, module=parameter.module, layer=parameter.layer, shape=parameter.shape)
