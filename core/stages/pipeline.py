"""The whole story of a run in verbs: load, graph, capture, score, plan, surgery, recover, evaluate, export.

A stage whose artifact is there and undamaged is not repeated, so a resumed run ends as one that was
never interrupted. Each goal below reads from top to bottom.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.criteria import CRITERIA
from core.errors import DataError
from core.graph.records import Graph
from core.methods import method_of
from core.models.load import Loaded, graph_of, load_config, pick_device
from core.models.sources import resolve
from core.models.texts import BUNDLED, NONE, SELF, calibration_title, evaluation_text
from core.plan.records import PruningPlan, check_plan
from core.registry import check_options
from core.results.scores import Scores
from core.results.sweep import Sweep, planned, run_of
from core.runs.recorder import Recorder
from core.spec.checks import parse_layers
from core.spec.run import RunSpec
from core.stages import ablate as ablating
from core.stages import measure as measures
from core.stages import metrics as results
from core.stages import nuteprune
from core.stages import reconstruct as refitting
from core.stages import recover as recovery
from core.stages import steps as stages
from core.stages import sweep as sweeping
from core.stages.benchmark import benchmarks, scored_earlier, scores_of
from core.stages.benchmark import check as check_benchmarks
from core.stages.measure import Measured
from core.stages.work import Work, needs


def run(spec: RunSpec, run_dir: Path, recorder: Recorder) -> None:
    """Do what `spec` asks and leave every artifact in `run_dir`.

    Raises:
        PruneError: what cannot be done, or StopRequested.
    """
    goals = {
        "explore": explore,
        "prune": prune,
        "recover": recover,
        "evaluate": evaluate,
        "sweep": sweep,
    }
    goals[spec.goal](Work(spec, run_dir, recorder))


def check(spec: RunSpec) -> None:
    """Find what is wrong with a request before anything is started. Raises InputError or NotPrunableError."""
    check_method(spec)
    check_device(spec)
    config = load_config(spec.model.source, spec.model.trust_remote_code).get_text_config()
    if spec.prunes and spec.prune.layers is not None:
        parse_layers(spec.prune.layers, config.num_hidden_layers)
    if spec.prune.units and resolve(spec.model.source).kind != "pruned":  # whose config is the dense one
        check_plan(graph_of(spec.model, config_only=True), spec.prune.units)
    if spec.goal in ("prune", "recover"):
        recovery.check(spec, config)
    if spec.goal == "prune" and spec.prune.without_dependency:
        ablating.check(spec)
    if spec.goal in ("explore", "prune", "sweep"):
        _check_calibration(spec)
    stages.check_lengths(spec, config)
    evaluation_text(spec.evaluate.text)
    if spec.goal == "sweep":
        for point in planned(spec):
            run_of(spec, point)  # its parts are checked as they are made
    if spec.goal in ("prune", "recover", "evaluate"):
        check_benchmarks(spec.evaluate)


def check_method(spec: RunSpec) -> None:
    """Whether there are such criteria or such a method, with such options. Raises InputError."""
    method = method_of(spec)
    ranking = [CRITERIA[name] for name in criteria_of(spec)]
    check_options([*([method] if method else []), *ranking], stages.options(spec))
    if method:
        method.component.check(spec.prune, method.settings(spec.prune.options))


def check_device(spec: RunSpec) -> None:
    """Whether there are as many devices as the method is to train on. Raises SpecError, ModelError."""
    if method := method_of(spec):
        settings = method.settings(spec.prune.options)
        nuteprune.check_device(settings, pick_device(spec.model.device))


def _check_calibration(spec: RunSpec) -> None:
    if spec.calibration.name == NONE:
        reads = [name for name in criteria_of(spec) if needs([name])]
        reads += [spec.prune.method] if method_of(spec) else []
        reads += ["similarity"] if spec.goal == "explore" and "similarity" in spec.explore.analyses else []
        if reads:
            raise DataError(
                f"{', '.join(reads)} needs calibration text, got '{NONE}'; give '{BUNDLED}', a file or "
                f"'{SELF}' (the model writes it), or take a criterion without data: second_moment_data_free."
            )
    calibration_title(spec.calibration.name)


def prune(work: Work) -> None:
    """Measure the dense model, cut it to the target, train it if asked to, measure it again and save it."""
    asked, train = work.spec.prune, work.spec.recover.method != "none"
    if asked.without_dependency:
        return ablating.ablate(work)
    check_device(work.spec)  # asked for on the page, nobody has looked yet
    criteria = criteria_of(work.spec)
    ranking = [*(["capture"] if needs(criteria) else []), *(["score"] if criteria else [])]
    ranking += ["train"] if method_of(work.spec) else []
    refit = ["reconstruct"] if asked.reconstruct != "none" else []
    verbs = ["load", "graph", "baseline", *benchmarks(work, "dense"), *ranking, "plan", *refit, "surgery"]
    work.recorder.begin([*verbs, *last_verbs(work, train)])
    loaded = stages.load(work)
    graph = stages.graph(work, loaded)
    if asked.layers is not None:
        parse_layers(asked.layers, len(graph.layer_modules))
    check_plan(graph, asked.units)
    recovery.check_targets(loaded, graph, work.spec.recover)
    before = measures.baseline(work, loaded)
    tasks = scores_of(work, loaded, "dense", "tasks_before")
    scores = scored(work, loaded, graph) if criteria else {}
    plan, ready, dense = ready_to_cut(work, loaded, graph, scores, before)
    pruned = stages.surgery(work, ready, graph, plan)
    cut, trained = recovered(work, pruned, graph) if train else (None, {})
    finish(work, pruned, graph, plan, measures.after(work, pruned, before, dense, cut), cut, tasks | trained)
    if method_of(work.spec):
        nuteprune.forget(work.run_dir)


def ready_to_cut(
    work: Work, loaded: Loaded, graph: Graph, scores: Scores, before: Measured
) -> tuple[PruningPlan, Loaded, Loaded | None]:
    """The plan, the model to cut, and a dense one to be timed beside the result if one is needed."""
    method, asked = method_of(work.spec), work.spec.prune
    if method is None:
        plan = stages.plan(work, graph, scores.get(asked.method, {}))
        dense = measures.dense_copy(work, loaded, before)
        return refitting.reconstruct(work, loaded, graph, plan), loaded, dense
    first = method.component.start_from(asked.options)
    settings = method.settings(asked.options)
    plan, ready = nuteprune.learn(work, loaded, graph, settings, scores[first] if first else None)
    return plan, ready, measures.dense_again(work, before)


def recover(work: Work) -> None:
    """Train the result of a pruning run, measure it before and after, and save it with the same plan."""
    work.recorder.begin(["load", *last_verbs(work, True)])
    loaded = stages.load(work)
    graph, plan = recovery.plan_of_pruned(work, loaded)
    tasks = scored_earlier(work)
    cut, trained = recovered(work, loaded, graph)
    dense, cut = measures.earlier(work, cut)
    finish(work, loaded, graph, plan, measures.after(work, loaded, dense, None, cut), cut, tasks | trained)


def recovered(work: Work, pruned: Loaded, graph: Graph) -> tuple[Measured, dict[str, Any]]:
    """What the pruned model was before its training, and how that went."""
    cut = measures.before_training(work, pruned)
    tasks = scores_of(work, pruned, "pruned", "tasks_pruned")
    return cut, tasks | recovery.recover(work, pruned, graph)


def finish(
    work: Work,
    final: Loaded,
    graph: Graph,
    plan: PruningPlan,
    measured: tuple[Measured | None, Measured],
    cut: Measured | None,
    facts: dict[str, Any],
) -> None:
    """Score the final model on the benchmarks, save it and write down all that was measured."""
    facts |= scores_of(work, final, "recovered" if cut else "pruned", "tasks_after")
    metrics = {**results.pruning(work, plan, *measured, cut), **facts}
    stages.export(work, final, graph, plan, metrics)
    results.write(work, {**metrics, "seconds": work.recorder.seconds})
    recovery.forget(work)
    refitting.forget(work)


def last_verbs(work: Work, train: bool) -> list[str]:
    """The stages after surgery."""
    training = ["measure", *benchmarks(work, "pruned"), "recover"] if train else []
    return [*training, "evaluate", *benchmarks(work, "recovered" if train else "pruned"), "export"]


def explore(work: Work) -> None:
    """Find out about a model without changing it: the analyses that were asked for."""
    if work.spec.explore.config_only:
        work.recorder.begin(["graph"])
        stages.graph(work, None)
        return
    asked, criteria = work.spec.explore.analyses, criteria_of(work.spec)
    capture = ["capture"] if needs(criteria) else []
    verbs = ["load", "graph", *(["similarity"] if "similarity" in asked else [])]
    verbs += [*capture, "score"] if criteria else []
    verbs += ["sensitivity"] if "sensitivity" in asked else []
    work.recorder.begin(verbs)
    loaded = stages.load(work)
    graph = stages.graph(work, loaded)
    if "similarity" in asked:
        stages.similarity(work, loaded, graph)
    scores = scored(work, loaded, graph) if criteria else {}
    if "sensitivity" in asked:
        stages.sensitivity(work, loaded, graph, scores[work.spec.explore.sensitivity_criterion])


def evaluate(work: Work) -> None:
    """Measure a model, or the result of a finished run."""
    work.recorder.begin(["load", "evaluate", *benchmarks(work, "model")])
    loaded = stages.load(work)
    found = {
        "tasks": {},
        **results.evaluating(work, loaded, measures.alone(work, loaded)),
        **scores_of(work, loaded, "model", "tasks"),
    }
    results.write(work, {**found, "seconds": work.recorder.seconds})


def sweep(work: Work) -> None:
    """Measure many ways to prune a model; whatever is measured stays, stopped or not."""
    capture = ["capture"] if needs(criteria_of(work.spec)) else []
    work.recorder.begin(["load", "graph", "baseline", *capture, "score", "sweep"])
    loaded = stages.load(work)
    graph = stages.graph(work, loaded)
    windows = sweeping.windows_of(work, loaded)
    found: Sweep = sweeping.begin(work, loaded, graph, windows)
    known: sweeping.Known = {}
    for shared, points in sweeping.passes(work, found):
        scores = scored(shared, loaded, graph)
        found = sweeping.measure(work, loaded, graph, scores, windows, found, points, known)


def scored(work: Work, loaded: Loaded, graph: Graph) -> Scores:
    """Capture and score, unless undamaged scores of all criteria are there."""
    criteria = criteria_of(work.spec)
    kept = stages.kept_scores(work, graph, criteria)
    if kept is not None:
        work.recorder.message("The scores from before are kept")
        return kept
    statistics = stages.capture(work, loaded, graph, criteria)
    return stages.score(work, loaded, graph, criteria, statistics)


def criteria_of(spec: RunSpec) -> list[str]:
    """The criteria a run scores with, each once."""
    if spec.goal == "prune":
        method = method_of(spec)
        name = method.component.start_from(spec.prune.options) if method else spec.prune.method
        return [] if spec.prune.units or name is None else [name]
    if spec.goal == "sweep":
        return list(spec.sweep.methods)
    asked = list(spec.explore.criteria) if "scores" in spec.explore.analyses else []
    if "sensitivity" in spec.explore.analyses:
        asked.append(spec.explore.sensitivity_criterion)
    return list(dict.fromkeys(asked)) if spec.goal == "explore" else []
