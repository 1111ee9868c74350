"""`groups`: what has to be removed together, and what couples two parameters."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from core.cli import options
from core.cli.ask import GROUPS_ALONE, ask
from core.cli.terminal import emit, stdout_kept_clean, table
from core.graph.records import Graph
from core.graph.view import path_between, strengths
from core.plan.cost import params_in


@options.takes("groups")
def groups(
    model: options.ModelArgument,
    between: Annotated[
        tuple[str, str] | None,
        typer.Option("--between", metavar="PARAMETER PARAMETER", help="Say what couples these two."),
    ] = None,
    given: options.Given = options.FIELDS,
    as_json: options.Json = False,
) -> None:
    """Find the coupled groups: what has to be removed together."""
    with stdout_kept_clean():
        from core.models.load import graph_of

        spec = ask("explore", model, {**given, **GROUPS_ALONE})
        graph = graph_of(spec.model, spec.explore.config_only)
        found = summary(graph)
        coupling = coupled(graph, *between) if between else None
    if coupling is not None:
        return emit({**found, "between": coupling}, as_json, _coupling(coupling))
    head = ["kind", "groups", "units", "parameters", "prunable"]
    rows = [
        [
            kind,
            str(one["groups"]),
            f"{one['units']:,}",
            f"{one['params']:,}",
            "yes" if one["prunable"] else "no",
        ]
        for kind, one in found["kinds"].items()
    ]
    notes = [f"{one['kind']} cannot be pruned: {one['reason']}" for one in found["not_prunable"]]
    emit(found, as_json, [f"{found['model']} ({found['family']})", "", *table([head, *rows]), *notes])


def _coupling(found: dict[str, Any]) -> list[str]:
    """What couples two parameters, for people."""
    path = " -> ".join(found["path"]) or "nothing connects them"
    strength = "" if found["strength"] is None else f"dependency strength  {found['strength']:.3f} (of 0.5)"
    return [path, f"groups they share  {' '.join(found['groups']) or 'none'}", *filter(None, [strength])]


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


def coupled(graph: Graph, parameter_a: str, parameter_b: str) -> dict[str, Any]:
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
