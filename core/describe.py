"""A model's coupled groups, counted by kind, and what couples two of its parameters."""

from __future__ import annotations

from typing import Any

from core.graph.records import Graph
from core.graph.view import path_between, strengths
from core.plan.cost import params_in


def summary(graph: Graph) -> dict[str, Any]:
    """What `groups` prints: per kind the groups, units and parameters, and what cannot be pruned."""
    kinds = {}
    for kind in dict.fromkeys(group.kind for group in graph.groups):
        groups = graph.of_kind(kind)
        kinds[kind] = {
            "groups": len(groups),
            "units": sum(group.units for group in groups),
            "params": params_in(graph, groups),
            "prunable": any(group.prunable for group in groups),
        }
    return {
        "model": graph.model,
        "family": graph.family,
        "seconds": graph.seconds,
        "kinds": kinds,
        "not_prunable": list(graph.not_prunable),
    }


def between(graph: Graph, parameter_a: str, parameter_b: str) -> dict[str, Any]:
    """What couples two parameters.

    Returns:
        `parameters`; `path`, the operations from one to the other; `groups`, those that both lose slices
        in; `strength`, the dependency strength of the fusion paper (Eq. 1) if data flows from one straight
        into the other, else None.

    Raises:
        UnknownNameError: no such parameter.
    """
    a, b = graph.tied.get(parameter_a, parameter_a), graph.tied.get(parameter_b, parameter_b)
    path = path_between(graph, a, b)
    known = strengths(graph)
    shared = [g.id for g in graph.groups if {a, b} <= {member.parameter for member in g.members}]
    return {
        "parameters": [parameter_a, parameter_b],
        "path": path,
        "groups": shared,
        "strength": known.get((a, b), known.get((b, a))),
    }
