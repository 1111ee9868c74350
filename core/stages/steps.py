"""The stages of a run: each announces itself, calls one part of the engine and writes its artifact."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from core.capture.divergence import similarity as measure_similarity
from core.capture.statistics import Statistics
from core.capture.statistics import capture as capture_statistics
from core.criteria.scoring import check_readable, score_structures
from core.criteria.scoring import score as score_units
from core.evaluate.sensitivity import scan
from core.evaluate.sensitivity_points import curve_of
from core.files import write_json, write_text
from core.graph.discover import discover
from core.graph.records import Graph
from core.methods import method_of
from core.models import load as models
from core.models.load import Loaded, graph_of
from core.models.saved import save
from core.models.texts import calibration_title, calibration_windows, consecutive_windows, evaluation_text
from core.plan.allocation import allocate
from core.plan.chosen import chosen_plan
from core.plan.records import PruningPlan
from core.results.scores import (
    SCORES,
    SENSITIVITY,
    Scores,
    read_scores,
    read_sensitivity,
    write_scores,
    write_sensitivity,
)
from core.results.similarity import SIMILARITY, read_similarity, write_similarity
from core.results.widths import WIDTHS, widths
from core.runs.artifacts import GROUPS, MODEL, PLAN, read_graph, read_plan
from core.spec.checks import check_length
from core.spec.prune import KINDS
from core.spec.run import RunSpec
from core.stages.work import Work, add_facts, kept, needs, record_facts
from core.surgery.ablation import OwnScores
from core.surgery.operate import operate


def check_lengths(spec: RunSpec, config: Any) -> None:
    """Raises SpecError where the run would give a model of this config more tokens at once than it reads."""
    if spec.goal in ("explore", "prune", "sweep"):
        check_length("length", spec.calibration.length, config)
    check_length("window", spec.evaluate.window, config)


def load(work: Work) -> Loaded:
    """Load the model and write down what the result depends on."""
    work.recorder.stage("load")
    torch.manual_seed(work.spec.seed)
    if "OMP_NUM_THREADS" not in os.environ and hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    record_facts(work)
    loaded = models.load(**vars(work.spec.model))
    check_lengths(work.spec, loaded.config.get_text_config())  # asked for on the page, nobody has looked yet
    count = sum(parameter.numel() for parameter in loaded.model.parameters())
    dtype = str(loaded.dtype).removeprefix("torch.")
    work.recorder.message(f"{loaded.name}: {count:,} parameters, {dtype} on {loaded.device}")
    return loaded


def graph(work: Work, loaded: Loaded | None) -> Graph:
    """Trace the coupled groups, or read them; from the config alone where nothing was loaded."""
    work.recorder.stage("graph")
    found = kept(read_graph, work.run_dir)
    if found is None:
        found = (
            discover(loaded.model, name=loaded.name)
            if loaded
            else graph_of(work.spec.model, config_only=True)
        )
        write_text(work.run_dir / GROUPS, found.to_json())
    work.recorder.message(f"{len(found.groups)} coupled groups in {len(found.layer_modules)} layers")
    work.recorder.artifact(GROUPS)
    return found


def options(spec: RunSpec) -> dict[str, Any]:
    """The criteria's own options, as they were given."""
    return spec.prune.options if spec.prunes else spec.explore.options


def windows(work: Work, loaded: Loaded) -> torch.Tensor:
    """Windows to score units with, (samples, length): few of those that a method trains on."""
    data, method = work.spec.calibration, method_of(work.spec)
    samples = data.samples
    if method is not None:
        samples = min(samples, method.component.start_samples(work.spec.prune.options))
    found, text = calibration_windows(
        loaded.model,
        loaded.tokenizer,
        data.name,
        samples=samples,
        length=data.length,
        seed=work.spec.seed,
        on_progress=work.recorder.counter("tokens of calibration text"),
    )
    add_facts(work, calibration={"name": text.name, "sha256": text.sha256})
    return found


def similarity(work: Work, loaded: Loaded, graph: Graph) -> None:
    """How alike the heads of each layer attend."""
    work.recorder.stage("similarity")
    if kept(read_similarity, work.run_dir) is None:
        found = measure_similarity(
            loaded.model,
            graph,
            windows(work, loaded),
            text=calibration_title(work.spec.calibration.name),
            on_progress=work.recorder.counter("windows"),
        )
        write_similarity(work.run_dir, found)
    work.recorder.artifact(SIMILARITY)


def kept_scores(work: Work, graph: Graph, names: Sequence[str]) -> Scores | None:
    """Undamaged scores of all these criteria, or None."""
    scores = kept(read_scores, work.run_dir)
    if scores is None or any(not scores.get(name) for name in names):
        return None
    sizes = {group.id: group.units for group in graph.groups}
    fits = all(sizes.get(group) == len(array) for by in scores.values() for group, array in by.items())
    return scores if fits else None


def kinds(work: Work, graph: Graph) -> list[str]:
    """The unit kinds to score: those in scope; exploring leaves the costly residual channels out."""
    if work.spec.prunes:
        return list(work.spec.prune.kinds)
    there = {group.kind for group in graph.groups if group.prunable}
    return [kind for kind in KINDS if kind in there and kind != "residual_channel"]


def capture(work: Work, loaded: Loaded, graph: Graph, names: Sequence[str]) -> Statistics | None:
    """One pass over the calibration text, if any of these criteria needs data."""
    wanted = needs(names)
    if not wanted:
        return None
    work.recorder.stage("capture")
    check_readable(loaded.model, graph, names, kinds(work, graph))
    return capture_statistics(
        loaded.model,
        graph,
        windows(work, loaded),
        needs=wanted,
        kinds=kinds(work, graph),
        on_progress=work.recorder.counter("windows"),
    )


def score(
    work: Work,
    loaded: Loaded,
    graph: Graph,
    names: Sequence[str],
    statistics: Statistics | None,
) -> Scores:
    """A score per unit."""
    work.recorder.stage("score")
    seed, scope = work.spec.seed, kinds(work, graph)
    given = options(work.spec)
    scores = score_units(loaded.model, graph, list(names), statistics, seed=seed, kinds=scope, options=given)
    write_scores(work.run_dir, scores)
    work.recorder.artifact(SCORES)
    return scores


def own_scores(work: Work, loaded: Loaded, graph: Graph, statistics: Statistics | None) -> OwnScores:
    """Scores of a group's structures, each estimated on that structure alone."""
    asked = work.spec.prune
    given: dict[str, Any] = {"seed": work.spec.seed, "options": asked.options}
    return lambda group: score_structures(loaded.model, graph, group, asked.method, statistics, **given)


def sensitivity(work: Work, loaded: Loaded, graph: Graph, scores: dict[str, Any]) -> None:
    """Perplexity when only one layer's attention or FFN is pruned."""
    work.recorder.stage("sensitivity")
    asked, text = work.spec.explore, evaluation_text(work.spec.evaluate.text)
    if kept(read_sensitivity, work.run_dir) is None:
        window = min(work.spec.evaluate.window, asked.sensitivity_tokens)
        found = scan(
            loaded.model,
            graph,
            scores,
            consecutive_windows(loaded.tokenizer, text, window=window, tokens=asked.sensitivity_tokens),
            ratios=asked.sensitivity_ratios,
            kinds=asked.sensitivity_kinds,
            layers=None,
            criterion=asked.sensitivity_criterion,
            text=text.name,
            on_progress=work.recorder.counter("points"),
            on_point=lambda point: work.recorder.metric(curve_of(point), point["layer"] or 0, point["ppl"]),
        )
        write_sensitivity(work.run_dir, found)
    work.recorder.artifact(SENSITIVITY)


def plan(work: Work, graph: Graph, scores: dict[str, Any]) -> PruningPlan:
    """Which units go, written down before anything is cut."""
    work.recorder.stage("plan")
    asked = work.spec.prune
    found = kept(read_plan, work.run_dir)
    if found is None:
        found = (
            chosen_plan(graph, asked.units, biased=asked.biased)
            if asked.units
            else allocate(
                graph,
                scores,
                **asked.allocation(),
                method=asked.method,
                model=graph.model,
            )
        )
    return keep_plan(work, graph, found)


def keep_plan(work: Work, graph: Graph, found: PruningPlan) -> PruningPlan:
    """Write a plan down unless it is there, with the widths it leaves, and say what it removes."""
    if kept(read_plan, work.run_dir) != found:
        write_text(work.run_dir / PLAN, found.to_json())
    write_json(work.run_dir / WIDTHS, widths(graph, found))
    share = f"{found.sparsity:.1%} of block parameters, {found.sparsity_total:.1%} of all"
    work.recorder.message(f"The plan removes {share}")
    if found.target and not found.removed:
        work.recorder.message("Warning: no unit is as small as the target, so nothing goes; raise it.")
    for name in (PLAN, WIDTHS):
        work.recorder.artifact(name)
    return found


def surgery(work: Work, loaded: Loaded, graph: Graph, plan: PruningPlan) -> Loaded:
    """Cut the model in place."""
    work.recorder.stage("surgery")
    return replace(loaded, model=operate(loaded.model, graph, plan.removed, plan.biases), plan=plan)


def export(work: Work, loaded: Loaded, graph: Graph, plan: PruningPlan, facts: dict[str, Any]) -> None:
    """Save the pruned model where `from_pretrained` finds it."""
    work.recorder.stage("export")
    folder = work.run_dir / MODEL
    save(loaded.model, loaded.tokenizer, graph, plan, folder, facts=facts)
    work.recorder.artifact(MODEL)
