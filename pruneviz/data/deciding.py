"""Kept curves -> what the browser needs to spread a budget over the groups, and a plan of what it found."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import ArtifactError, SpecError
from core.graph.records import Graph
from core.plan.cost import cost, params_in
from core.plan.curves import Curve, slopes_of
from core.plan.latency import Timings
from core.plan.meter import Meter
from core.plan.ranking import Scores, removal_order
from core.plan.records import bias_sizes, missing_biases
from core.results import words
from core.results.curves import curves_of_scan, curves_of_search
from core.results.scores import AL_AM, SCORES, ranked_by, read_all_scores
from core.results.search import SEARCH, read_search
from core.results.sensitivity import SENSITIVITY, read_sensitivity
from core.runs.artifacts import GROUPS, read_spec
from core.runs.timings import timings_here
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.spec.units import MANUAL, Units
from pruneviz.data import runs
from pruneviz.data.runs import RunRecord

#: Curves with fewer widths are not followed beyond the last.
FEW = 3
FINER = "Scan at the shares 0.15, 0.35, 0.6, 0.85 for a finer answer."
_PART = {"query_head": "attention", "kv_group": "attention", "ffn_channel": "ffn"}


@dataclass(frozen=True)
class Kept:
    """What a plan can be made of without measuring anything.

    Attributes:
        run: that holds the curves; about: where they come from, for people.
        criterion: what orders the units of a group, with its scores.
        biased: whether units that go leave their mean behind.
        timings: the newest of this model on this host, or None.
    """

    run: Path
    about: str
    graph: Graph
    curves: dict[str, Curve]
    criterion: str
    scores: Scores
    biased: bool
    timings: Timings | None


def kept_curves(records: Sequence[RunRecord], model: str) -> Kept | None:
    """The curves of the newest search of a model, else of its newest scan; None without any.

    Raises:
        ArtifactError: a file is damaged, or scores for these curves are missing.
    """
    described = runs.latest(records, model, GROUPS)
    searched, scanned = runs.latest(records, model, SEARCH), runs.latest(records, model, SENSITIVITY)
    run = searched or scanned
    if described is None or run is None:
        return None
    graph = runs.graph_of(described)
    timings = timings_here(graph)
    if searched:
        search = read_search(searched)
        curves = curves_of_search(search, graph)
        read = words.read_on(search.text, window=search.window, tokens=search.tokens)
        about = f"Curves of the search {searched.name}, in nats of divergence from the dense model on {read}"
        criterion, biased = search.criterion, search.biased
    else:
        scan = read_sensitivity(run)
        curves, criterion, biased = curves_of_scan(scan, graph), scan.criterion, True
        read = words.read_on(scan.text, window=scan.window, tokens=scan.tokens, protocol=scan.protocol)
        about = f"Curves of the scan below, in nats of log perplexity on {read}"
    curves = {name: curve for name, curve in curves.items() if graph.group(name).kind in _PART}
    if not curves:
        return None
    few = max(len(curve.gone) for curve in curves.values()) - 1
    about += f", measured at {words.count(few)} width{'s' * (few != 1)} each"
    about += f": no group gives more than that. {FINER}" if few < FEW else "."
    name, scores = _scores(records, model, run, criterion, curves)
    return Kept(run, about, graph, curves, name, scores, biased, timings)


def read_for_curves(records: Sequence[RunRecord], model: str) -> Hashable:
    """What changes with everything that `kept_curves` reads. Raises ArtifactError for damaged groups."""
    described, *others = (runs.latest(records, model, name) for name in (GROUPS, SEARCH, SENSITIVITY, SCORES))
    if described is None:
        return ()
    timings = timings_here(runs.graph_of(described))
    files = [
        folder / name
        for folder in dict.fromkeys((described, *others))
        for name in (GROUPS, SEARCH, SENSITIVITY, SCORES)
        if folder
    ]
    return (*((str(file), runs.changed(file)) for file in files), timings and timings.at)


def _scores(
    records: Sequence[RunRecord], model: str, run: Path, criterion: str, curves: Mapping[str, Curve]
) -> tuple[str, Scores]:
    """Scores that order the units of these groups: by the criterion of the curves if they are kept."""
    for folder in (run, runs.latest(records, model, SCORES)):
        if folder is None or not (folder / SCORES).is_file():
            continue
        every = read_all_scores(folder)
        names = [ranked_by(criterion, AL_AM), criterion, *(name for name in every if "." not in name)]
        for name in names:
            if name in every and set(curves) <= set(every[name]):
                return name.partition(".")[0], every[name]
    raise ArtifactError(
        "There are curves, but no scores that say which units of a group go first; analyse the model on the "
        "Model tab."
    )


def to_browser(kept: Kept) -> dict[str, Any]:
    """Everything that moves with the budget, for `assets/js/budget_planner.js`."""
    graph, dense = kept.graph, cost(kept.graph, {})
    groups = [graph.group(name) for name in kept.curves]
    timings = kept.timings
    weights = timings.weights(graph) if timings else {}
    timed = timings if timings and all(group.id in weights for group in groups) else None
    return {
        "groups": [_group(kept, group.id, weights) for group in sorted(groups, key=lambda g: g.layer or 0)],
        "layers": len(graph.layer_modules),
        "params": dense.params,
        "scope": params_in(graph, groups),
        "time": timed
        and {
            "dense": timed.dense_ms,
            "saved": {kind: [[0, 0], *points] for kind, points in timed.saved_ms.items()},
            "about": f"{timed.reads} on {timed.machine}",
        },
        "about": kept.about,
        "criterion": kept.criterion,
    }


def most_of(curve: Curve, units: int) -> int:
    """How many units a group may give: of a curve with few points no more than was measured."""
    return units - 1 if len(curve.gone) > FEW else curve.gone[-1]


def _group(kept: Kept, name: str, weights: Mapping[str, tuple[str, float, int]]) -> dict[str, Any]:
    graph, curve = kept.graph, kept.curves[name]
    group, order = graph.group(name), removal_order(graph.group(name), kept.scores)
    meter = Meter(graph, {name: order})
    heads = _PART[group.kind] == "attention"
    counts = range(group.units) if heads else (0, 1)
    added = missing_biases(graph, {name: (0,)}) if kept.biased else ()
    at, slopes = slopes_of(curve, group.units)
    beyond = curve.loss[-1] + float(slopes[-1]) * (group.units - curve.gone[-1])
    return {
        "id": name,
        "layer": group.layer,
        "part": _PART[group.kind],
        "units": group.units,
        "at": at.tolist(),
        "slopes": slopes.tolist(),
        "cost": params_in(graph, [group]) / group.units,
        "most": most_of(curve, group.units),
        "measured": len(curve.gone),
        # The last point is where the last slope leads, not measured.
        "gone": [*curve.gone, group.units],
        "loss": [each - curve.loss[0] for each in (*curve.loss, beyond)],
        # Of heads the keys and values go with the last that reads them; channels are all alike.
        "saved": [meter.removed({name: n}) for n in counts],
        "added": sum(bias_sizes(graph, added).values()),
        "kind": group.kind,
        "weight": weights[name][1] if name in weights else 0.0,
    }


def spec_of(kept: Kept, base: RunSpec, counts: Mapping[str, Any]) -> RunSpec:
    """The run that removes so many units of each group, those that go first.

    Args:
        base: model, device and precision of the run.

    Raises:
        SpecError: there is no such group, or it has not so many units to give.
    """
    units: Units = {}
    for name, count in counts.items():
        most = most_of(kept.curves[name], kept.graph.group(name).units) if name in kept.curves else 0
        if type(count) is not int or not 0 <= count <= most:
            raise SpecError(
                f"{name} can give 0 to {most} of its units, got {count!r}; move the slider again."
            )
        if count:
            order = removal_order(kept.graph.group(name), kept.scores)
            units[name] = tuple(sorted(order[:count].tolist()))
    if not units:
        raise SpecError("Nothing goes at this budget; move the slider.")
    how = "bias" if kept.biased else "none"
    asked = read_spec(kept.run)
    prune = PruneSpec(MANUAL, units=units, reconstruct=how)
    spec = replace(base, goal="prune", prune=prune, calibration=asked.calibration)
    return replace(spec, evaluate=asked.evaluate) if asked.goal == "prune" else spec
