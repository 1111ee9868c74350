"""The plan that removes exactly the units that were chosen by hand."""

from __future__ import annotations

from dataclasses import replace

from core.errors import NotPrunableError
from core.graph.records import Graph
from core.plan.cost import with_costs
from core.plan.records import PruningPlan, check_plan, cuts, missing_biases
from core.spec.units import MANUAL, Units


def chosen_plan(graph: Graph, units: Units, *, biased: bool = False, model: str = "") -> PruningPlan:
    """The plan that removes exactly these units and what follows from them, with its costs counted.

    Its sparsity is counted against all prunable groups of the kinds that lose units.

    Args:
        biased: modules that read what goes get a bias where they have none.

    Raises:
        NotPrunableError: nothing was chosen, a unit does not exist or cannot go, or a group would lose all.
    """
    if not any(units.values()):
        raise NotPrunableError("No unit is chosen; choose at least one.")
    check_plan(graph, units)
    cuts(graph, units)  # experts of one stack must lose the same number each
    kinds = tuple(sorted({graph.group(group).kind for group in units}))
    scope = [group for group in graph.of_kind(*kinds) if group.prunable]
    biases = missing_biases(graph, units) if biased else ()
    plan = PruningPlan(removed=units, model=model or graph.model, method=MANUAL, kinds=kinds, biases=biases)
    counted = with_costs(graph, plan, scope)
    return replace(counted, target=counted.sparsity)
