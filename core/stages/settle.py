"""What is recommended for the model at hand, in the place of what a request left open."""

from __future__ import annotations

from core.capture.statistics import CAPTURED_KINDS
from core.models.again import graph_of
from core.spec.recommended import RECOMMENDED
from core.spec.run import RunSpec


def settle(spec: RunSpec) -> RunSpec:
    """A request with a name for all that is recommended; the model is traced only where it matters.

    Raises:
        InputError: there is no such model; NotPrunableError: it cannot be traced.
    """
    if RECOMMENDED not in _methods(spec):
        return spec.settled()
    graph, kinds = graph_of(spec.model, config_only=True), spec.prune.kinds
    return spec.settled(unseen=graph.unseen(*(kinds if spec.prunes else CAPTURED_KINDS)))


def _methods(spec: RunSpec) -> tuple[str, ...]:
    """What ranks or scores in a run, where that depends on the model."""
    if spec.goal == "explore":
        return spec.explore.criteria if "scores" in spec.explore.analyses else ()
    if spec.goal == "sweep":
        return spec.sweep.methods
    return (spec.prune.method,) if spec.goal == "prune" and not spec.prune.without_dependency else ()
