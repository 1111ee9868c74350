"""`groups`: what has to be removed together, and what couples two parameters."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from core.cli import options
from core.cli.ask import GROUPS_ALONE
from core.cli.terminal import emit, stdout_kept_clean, table
from core.graph.records import BLOCKS, Graph
from core.plan.cost import params_in
from core.runs.request import FIELDS, Given, ask


@options.takes("groups")
def groups(
    model: options.ModelArgument,
    between: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--between", metavar="PARAMETER PARAMETER", help="Say what couples these two parameters."
        ),
    ] = None,
    given: Given = FIELDS,
    as_json: options.Json = False,
) -> None:
    """Find the coupled groups: what has to be removed together."""
    with stdout_kept_clean():
        from core.models.again import graph_of

        spec = ask("explore", model, {**given, **GROUPS_ALONE})
        graph = graph_of(spec.model, spec.explore.config_only)
        listed = summary(graph)
        coupling = coupled(graph, *between) if between else None
    if coupling is not None:
        return emit({**listed, "between": coupling}, as_json, _coupling(coupling))
    head = ["kind", "groups", "units", "parameters", "prunable"]
    rows = [
        [kind, str(of["groups"]), f"{of['units']:,}", f"{of['params']:,}", "yes" if of["prunable"] else "no"]
        for kind, of in listed["kinds"].items()
    ]
    notes = [f"{kind['kind']} cannot be pruned: {kind['reason']}" for kind in listed["not_prunable"]]
    emit(listed, as_json, [f"{listed['model']} ({listed['family']})", "", *table([head, *rows]), *notes])


def _coupling(coupling: dict[str, Any]) -> list[str]:
    """What couples two parameters, for people."""
    path = " -> ".join(coupling["path"]) or "nothing connects them"
    lines = [path, f"groups they share  {' '.join(coupling['groups']) or 'none'}"]
    if coupling["strength"] is not None:
        lines.append(f"dependency strength  {coupling['strength']:.3f} (of 0.5)")
    return lines


def summary(graph: Graph) -> dict[str, Any]:
    """What `groups` prints: groups, units and parameters of each kind, and what cannot be pruned."""
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
        `parameters`; `path`, the operations from one to the other; `groups`, in which both lose slices;
        `strength`, the dependency strength of the fusion paper (Eq. 1) if data flows from one straight
        into the other, else None.

    Raises:
        UnknownNameError: there is no such parameter.
    """
    from core.graph.view import path_between, strengths  # networkx takes a while, and few ask

    a, b = graph.tied.get(parameter_a, parameter_a), graph.tied.get(parameter_b, parameter_b)
    path = path_between(graph, a, b)
    strength = strengths(graph)
    coupling = [group for group in graph.groups if group.kind not in BLOCKS]  # a layer holds all in it
    shared = [g.id for g in coupling if {a, b} <= {member.parameter for member in g.members}]
    return {
        "parameters": [parameter_a, parameter_b],
        "path": path,
        "groups": shared,
        "strength": strength.get((a, b), strength.get((b, a))),
    }
