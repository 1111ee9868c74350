"""What can be wrong with a request, as far as it takes no torch: said at launch, before there is a run."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from core.graph.records import Graph
from core.models.configs import texts
from core.models.early import check_files, groups_left
from core.models.sources import at_hand
from core.plan.allocation import allocate
from core.plan.records import check_plan
from core.runs.timings import newest_here
from core.ship import delivery
from core.spec.budget import latency_of, without_latency
from core.spec.checks import check_length, parse_layers
from core.spec.run import RunSpec


def check_early(spec: RunSpec) -> None:
    """Find what a request and the model's files say against it, in a second.

    Raises:
        InputError, NotPrunableError: what is wrong. ArtifactError: the files of an earlier cut are damaged.
        StorageError: the result would have no room.
    """
    if spec.goal == "export":
        delivery.check(spec)
        return
    values = check_files(spec.model, weights=not config_only(spec))
    *_, text = texts(values)
    config = SimpleNamespace(**{str(name): value for name, value in text.items()})
    layers = getattr(config, "num_hidden_layers", None)
    if spec.prunes and spec.prune.layers is not None and type(layers) is int:
        parse_layers(spec.prune.layers, layers)
    check_lengths(spec, config)
    _check_again(spec)


def config_only(spec: RunSpec) -> bool:
    """Whether the run reads no weights."""
    return spec.goal == "explore" and spec.explore.config_only


def check_lengths(spec: RunSpec, config: Any) -> None:
    """Raises SpecError where the run would give a model of this config more tokens at once than it reads."""
    if spec.goal in ("explore", "prune", "sweep"):
        check_length("length", spec.calibration.length, config)
    asked = spec.evaluate
    whose = "window" if asked.window else f"the window of protocol {asked.protocol}"
    check_length(whose, asked.window_length, config)
    if spec.prunes and (budget := latency_of(spec.prune.target)):
        reads = budget.reads
        check_length(f"what target {budget.text} reads and writes", reads.tokens + reads.new, config)


def check_amount(spec: RunSpec, graph: Graph) -> None:
    """Whether so much can go, as far as that is known: a time is only where this machine was timed before.

    Raises:
        NotPrunableError: it cannot; says the most.
    """
    asked, timings = spec.prune.allocation(), newest_here(graph, spec.prune)
    if timings is None and (others := without_latency(spec.prune.target)) != spec.prune.target:
        asked |= {"target": others, "sparsity": 0.0}
    allocate(graph, None, **asked, timings=timings)


def _check_again(spec: RunSpec) -> None:
    """Whether what an earlier cut left is enough for another one, and what it left is what its files say."""
    source = at_hand(spec.model.source)
    if source is None or source.kind != "pruned":
        return
    graph = groups_left(source)
    asked = spec.settled(unseen=graph.unseen(*spec.prune.kinds)).prune
    if spec.prunes:
        check_plan(graph, asked.units)
    if spec.goal == "prune" and not asked.units:
        check_amount(replace(spec, prune=asked), graph)
