"""What can be wrong with a request, as far as it takes no torch: said at launch, before there is a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from core.criteria import CRITERIA
from core.criteria.registry import Criterion, check_scopes
from core.errors import SpecError
from core.graph.records import Graph
from core.methods import METHODS, criteria_of, criteria_options, method_of, processes_of, shards
from core.models.configs import texts
from core.models.early import check_files
from core.models.sources import at_hand, groups_left
from core.plan.allocation import allocate
from core.plan.records import check_plan
from core.registry import Entry, check_options, unknown
from core.results.scores import AL_AM
from core.runs import company
from core.runs.timings import newest_here
from core.ship import delivery
from core.spec.budget import latency_of, without_latency
from core.spec.checks import check_length, parse_layers
from core.spec.choices import SEARCHED
from core.spec.run import RunSpec
from core.spec.units import MANUAL


def check_early(spec: RunSpec) -> None:
    """Find what a request and the model's files say against it, in a second.

    Raises:
        InputError, NotPrunableError: what is wrong. ArtifactError: the files of an earlier cut are damaged.
        StorageError: the result would have no room.
    """
    if spec.goal == "export":
        delivery.check(spec)
        return
    settled = spec.settled()
    check_method(settled)
    check_rounds(settled)
    check_map(settled)
    check_shards(settled)
    values = check_files(spec.model, weights=not config_only(spec))
    *_, text = texts(values)
    config = SimpleNamespace(**{str(name): value for name, value in text.items()})
    layers = getattr(config, "num_hidden_layers", None)
    if spec.prunes and spec.prune.layers is not None and type(layers) is int:
        parse_layers(spec.prune.layers, layers)
    check_lengths(spec, config)
    _check_again(spec)


def check_method(spec: RunSpec) -> None:
    """Whether there are such criteria or such a method, with such options. Raises InputError."""
    method, names = method_of(spec), [*CRITERIA.names(), *METHODS.names(), MANUAL]
    if spec.goal == "prune" and spec.prune.method not in names:
        raise unknown("method", spec.prune.method, names)
    if trains := [name for name in criteria_of(spec) if name in METHODS.names()]:
        takes = ", ".join(CRITERIA.names())
        raise SpecError(f"{trains[0]} trains, and scores no units: give one of {takes}.")
    ranking = [CRITERIA[name] for name in criteria_of(spec)]
    check_options([*([method] if method else []), *ranking], criteria_options(spec))
    if method and spec.prune.target:
        raise SpecError(
            f"{spec.prune.method} learns towards a sparsity, got target {spec.prune.target}; give a sparsity."
        )
    if method:
        method.component.check(spec.prune, method.settings(spec.prune.options))
        check_start(ranking, method.component.start_scope(spec.prune.options))
    elif spec.prunes:
        check_scopes(criteria_of(spec), spec.sweep.scopes if spec.goal == "sweep" else (spec.prune.scope,))


def check_start(ranking: list[Entry[Criterion]], scope: str) -> None:
    """Whether a method that trains can start by this scope from these criteria. Raises SpecError."""
    without = [entry.name for entry in ranking if not entry.channels]
    if scope == AL_AM and without:
        raise SpecError(
            f"start_scope={AL_AM} compares the channels of units, which {without[0]} does not score; write "
            "start_from=ifv, or start_scope=kind."
        )


def check_rounds(spec: RunSpec) -> None:
    """Whether what is asked for can go in several parts. Raises SpecError."""
    asked = spec.prune
    if asked.rounds == 1 or not spec.prunes:
        return
    stray = {
        "a sweep": spec.goal == "sweep",
        f"method {asked.method}": method_of(spec) is not None or bool(asked.units),
        "--target": bool(asked.target),
        "--kind-sparsity": bool(asked.kind_sparsity),
        "--drop": bool(asked.drop),
        "--max-share": asked.max_share < 1,
        f"--scope {SEARCHED}": asked.scope == SEARCHED,
        "--without-dependency": asked.without_dependency,
    }
    if both := [name for name, given in stray.items() if given]:
        raise SpecError(
            f"rounds take a method that ranks units and one sparsity for all, got {asked.rounds} with "
            f"{', '.join(both)}; leave that out, or take --rounds 1."
        )


def check_map(spec: RunSpec) -> None:
    """Whether all that is asked for can do with weights that are lent. Raises SpecError."""
    if not spec.model.lent:
        return
    if reason := next(_against(spec), None):
        raise SpecError(f"--device-map {spec.model.device_map} cannot go with {reason}")


def _against(spec: RunSpec) -> Iterator[str]:
    """What cannot, and what to do instead, ends of a sentence."""
    asked, forward = spec.prune, "no gradient reaches weights that rest elsewhere"
    flags = {"prune": "--method", "sweep": "--methods", "explore": "--criterion"}
    sharding = "or let several processes share them out with shard_weights on"
    if (method := method_of(spec)) and method.settings(asked.options).shard_weights != "on":
        yield (
            f"method {asked.method}, which trains: {forward}; take a criterion, such as wifv or wanda, "
            f"{sharding}."
        )
    for name in criteria_of(spec):
        if name != MANUAL and any(need.startswith("gradient") for need in CRITERIA[name].needs):
            picks = spec.goal == "explore" and name not in spec.explore.criteria
            flag = "--ratio-by" if picks else flags[spec.goal]
            yield f"{name}, which reads gradients: {forward}; take one that does not, such as {flag} wifv."
    recovers = spec.goal in ("prune", "recover") and spec.recover.method != "none"
    if recovers and spec.recover.shard_weights != "on":
        yield (
            f"recovery by {spec.recover.method}: {forward}; take --reconstruct least_squares, train the "
            f"result where it fits, {sharding}."
        )
    if spec.prunes and asked.without_dependency:
        yield "without_dependency, which holds the model twice; leave one out."
    if spec.prunes and (budget := latency_of(asked.target)):
        yield (
            f"target {budget.text}: what is timed is how fast weights are lent; give params, size or macs."
        )
    if spec.evaluate.int8:
        yield "int8, which holds the model twice; leave one out."
    if not spec.cluster.here and spec.cluster.gpus == 0:
        yield f"--executor {spec.cluster.executor} and --gpus 0: there is no card to compute on; ask for one."


def check_shards(spec: RunSpec) -> None:
    """Raises SpecError where weights are to be sharded over one process."""
    if shards(spec) and max(company.size(), processes_of(spec)) == 1:
        raise SpecError(
            "shard_weights shares weights out among processes that train together, and there is one; ask "
            "for more (--processes 2, for NutePrune --set processes=2), start them with torchrun, or write "
            "shard_weights auto."
        )


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
        NotPrunableError: it cannot; says the most. SpecError: there are more rounds than units that go.
    """
    asked, timings = spec.prune.allocation(), newest_here(graph, spec.prune)
    if timings is None and (others := without_latency(spec.prune.target)) != spec.prune.target:
        asked |= {"target": others, "sparsity": 0.0}
    plan, rounds = allocate(graph, None, **asked, timings=timings), spec.prune.rounds
    if rounds > 1 and rounds > (units := sum(map(len, plan.removed.values()))):
        raise SpecError(
            f"{rounds} rounds are more than the {units} units that go, so in some nothing would; take at "
            f"most --rounds {max(1, units)}."
        )


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
