"""What most runs do: load, graph, capture, score, plan; each calls a part of the engine."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from core.capture.activations import FeatureSizes
from core.capture.statistics import capture as capture_statistics
from core.criteria import CRITERIA, scoring
from core.criteria.scoring import check_readable
from core.devices.lending import spread_of
from core.devices.spread import words
from core.files import write_json, write_text
from core.graph.records import Graph
from core.methods import criteria_of, criteria_options, method_of
from core.models import load as models
from core.models.again import graph_of, groups_of
from core.models.load import Loaded
from core.models.windows import calibration_windows
from core.plan.allocation import allocate
from core.plan.budgets import met
from core.plan.chosen import chosen_plan
from core.plan.latency import Timings
from core.plan.records import PruningPlan
from core.results.activations import ACTIVATIONS, Activations, read_activations, write_activations
from core.results.scores import AL_AM, SCORES, Scores, ranked_by, read_all_scores, write_scores
from core.results.widths import WIDTHS, widths
from core.runs.artifacts import GROUPS, PLAN, read_graph, read_plan
from core.spec.choices import KINDS
from core.spec.run import RunSpec
from core.stages.check import check_graph, check_tokens
from core.stages.early import check_lengths, config_only
from core.stages.measure import dense_to_time
from core.stages.needs import check_needs
from core.stages.work import (
    State,
    Work,
    ablates,
    add_facts,
    kept,
    needs,
    reading,
    record_facts,
)


def load(state: State) -> None:
    """Load the model and write down what the result depends on."""
    work = state.work
    torch.manual_seed(work.spec.seed)
    if "OMP_NUM_THREADS" not in os.environ and hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    record_facts(work)
    state.loaded = loaded = models.load(**vars(work.spec.model))
    work.recorder.works_on(_card(loaded.device))
    check_lengths(work.spec, loaded.config.get_text_config())  # a request from the page was not looked at yet
    check_tokens(work.spec, loaded.tokenizer)
    count = sum(parameter.numel() for parameter in loaded.model.parameters())
    dtype = str(loaded.dtype).removeprefix("torch.")
    for note in loaded.notes:
        work.recorder.warn(f"{note}.")
    work.recorder.message(f"{loaded.name}: {count:,} parameters, {dtype} on {loaded.device}")
    if spread := spread_of(loaded.model):
        work.recorder.message(words(loaded.model, spread))
    if loaded.plan is not None and work.spec.prunes:
        work.recorder.message(
            f"{loaded.name} lacks {loaded.plan.sparsity_total:.1%} of {loaded.plan.model} already; sparsity "
            "is counted of what is left, and both plans are saved as one"
        )


def _card(device: torch.device) -> str:
    """Which card this is, in words: its number is the machine's, not that among those the run may see."""
    if device.type != "cuda":
        return ""
    index = device.index or 0
    visible = [number for number in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if number]
    number = visible[index] if index < len(visible) else index
    return f"{torch.cuda.get_device_name(device)}, number {number}"


def graph(state: State) -> None:
    """Trace the coupled groups, or read them; from the config alone where no weights are read."""
    work = state.work
    traced = kept(read_graph, work.run_dir)
    if traced is None:
        if config_only(work.spec):
            traced = graph_of(work.spec.model, config_only=True)
        else:
            traced = groups_of(state.loaded)
        write_text(work.run_dir / GROUPS, traced.to_json())
    groups, layers = len(traced.groups), len(traced.layer_modules)
    work.recorder.message(f"{groups} coupled groups in {layers} layer{'s' if layers != 1 else ''}")
    work.recorder.artifact(GROUPS)
    state.graph = traced
    if work.spec.goal == "prune":
        check_graph(work.spec, state.loaded, traced)
        check_needs(work, state.loaded, traced)


def windows(
    work: Work,
    loaded: Loaded,
    *,
    samples: int | None = None,
    seed: int | None = None,
    length: int | None = None,
) -> tuple[torch.Tensor, dict[str, str]]:
    """Windows to score units with, (samples, length): few of those that a method trains on.

    Args:
        samples, seed, length: others than the run's.

    Returns:
        The windows, and the `name` and `sha256` of their text.
    """
    data, method = work.spec.calibration, method_of(work.spec)
    if samples is None:
        samples = data.samples
        if method is not None:
            samples = min(samples, method.component.start_samples(work.spec.prune.options))
    read, text = calibration_windows(
        loaded.model,
        loaded.tokenizer,
        data.name,
        samples=samples,
        length=length or data.length,
        seed=work.spec.seed if seed is None else seed,
        on_progress=work.recorder.counter("tokens of calibration text"),
        **reading(work.spec),
    )
    return read, {"name": text.name, "sha256": text.sha256}


def recovery_windows(work: Work, loaded: Loaded) -> torch.Tensor:
    """Windows that `pre_pruning` reconstructs on, (samples, length): a draw of their own from the text."""
    return windows(work, loaded, samples=work.spec.prune.recovery_samples, seed=work.spec.seed + 1)[0]


def capture(state: State) -> None:
    """One pass over the calibration text, unless the scores that need it are kept.

    An exploring run also keeps how large the features are that it sees.
    """
    work, names, sizes = state.work, criteria_of(state.work.spec), _sizes(state)
    if kept_scores(state) is not None and sizes is None:
        return
    scope = kinds(work.spec, state.graph)
    check_readable(state.loaded.model, state.graph, names, scope)
    read, text = windows(work, state.loaded)
    pass_of = "" if state.folder == work.run_dir else f" {state.folder.name}"
    add_facts(work, **{f"calibration{pass_of}": text})
    state.statistics = capture_statistics(
        state.loaded.model,
        state.graph,
        read,
        needs=needs(names),
        batch_size=work.spec.calibration.batch,
        kinds=scope,
        sizes=sizes,
        on_progress=work.recorder.counter("windows"),
        on_reading=work.recorder.message,
    )
    if sizes:
        write_activations(work.run_dir, Activations(sizes.points(), sizes.tokens, text["name"]))
        work.recorder.artifact(ACTIVATIONS)


def _sizes(state: State) -> FeatureSizes | None:
    """A collector where an exploring run has not kept what it would find."""
    work = state.work
    if work.spec.goal != "explore":
        return None
    if kept(read_activations, work.run_dir) is None:
        return FeatureSizes(state.loaded.model, state.graph)
    work.recorder.artifact(ACTIVATIONS)
    return None


def score(state: State) -> None:
    """A score per unit and criterion, or the undamaged ones from before."""
    work, spec = state.work, state.work.spec
    scores = kept_scores(state)
    if scores is None:
        scores = scoring.score(
            state.loaded.model,
            state.graph,
            criteria_of(spec),
            state.statistics,
            seed=spec.seed,
            kinds=kinds(spec, state.graph),
            options=criteria_options(spec),
            scopes=(AL_AM,),
        )
        write_scores(state.folder, scores)
    else:
        work.recorder.message("The scores from before are kept")
    work.recorder.artifact(str((state.folder / SCORES).relative_to(work.run_dir)))
    state.scores = scores
    if not ablates(spec):  # which scores every matrix again
        state.statistics = None


def kept_scores(state: State) -> Scores | None:
    """Undamaged scores of all criteria, or None."""
    spec, scores = state.work.spec, kept(read_all_scores, state.folder)
    names = criteria_of(spec)
    names += [ranked_by(name, AL_AM) for name in names if CRITERIA[name].channels]
    if scores is None or ablates(spec) or any(not scores.get(name) for name in names):
        return None
    sizes = {group.id: group.units for group in state.graph.groups}
    fits = all(sizes.get(group) == len(array) for by in scores.values() for group, array in by.items())
    return scores if fits else None


def kinds(spec: RunSpec, graph: Graph) -> Sequence[str]:
    """The unit kinds to score: those in scope; exploring leaves the costly residual channels out."""
    if spec.prunes:
        return spec.prune.kinds
    prunable = {group.kind for group in graph.groups if group.prunable}
    return [kind for kind in KINDS if kind in prunable and kind != "residual_channel"]


def plan(state: State) -> None:
    """Which units go, written down before anything is cut."""
    work, asked, graph = state.work, state.work.spec.prune, state.graph
    chosen = kept(read_plan, work.run_dir)
    if chosen is None and asked.units:
        chosen = chosen_plan(graph, asked.units, biased=asked.biased)
    if chosen is None:
        chosen = state.searched
    if chosen is None:
        scores = state.scores[ranked_by(asked.method, asked.scope)]
        arguments = asked.allocation() | {"worth": state.worth, "method": asked.method}
        chosen = allocate(graph, scores, **arguments, timings=state.timings, model=graph.model)
    state.plan = keep_plan(work, graph, chosen, state.timings)
    state.dense = dense_to_time(state)


def keep_plan(work: Work, graph: Graph, plan: PruningPlan, timings: Timings | None = None) -> PruningPlan:
    """Write a plan down unless it is there, with the widths it leaves, and say what it leaves and removes.

    Args:
        timings: of the model on this machine, where a budget is of time.
    """
    if kept(read_plan, work.run_dir) != plan:
        write_text(work.run_dir / PLAN, plan.to_json())
    write_json(work.run_dir / WIDTHS, widths(graph, plan))
    share = f"{plan.sparsity:.1%} of block parameters, {plan.sparsity_total:.1%} of all"
    answers = "; ".join(each.words for each in met(graph, work.spec.prune.target, plan, timings))
    leaves = f"leaves {answers}; it " if answers else ""
    work.recorder.message(f"The plan {leaves}removes {share}")
    if plan.target and not plan.removed:
        work.recorder.warn("no unit is as small as the target, so nothing goes; raise it.")
    for name in (PLAN, WIDTHS):
        work.recorder.artifact(name)
    return plan
