"""The run behind `--without-dependency`: one plan measured with and without its couplings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from core.criteria.scoring import score_structures
from core.spec.run import RunSpec
from core.stages import measure
from core.stages.metrics import pruning
from core.stages.work import State
from core.surgery.ablation import OwnScores, without_dependency
from core.surgery.masks import masked


def untimed(spec: RunSpec) -> RunSpec:
    """The same run without measuring efficiency: masks do not make a model faster."""
    return replace(spec, evaluate=replace(spec.evaluate, efficiency=False))


def measure_coupled(state: State) -> None:
    """Measure the plan as it is, under masks: perplexity alone."""
    work = state.work
    silent = replace(work, spec=replace(work.spec, evaluate=replace(work.spec.evaluate, prompts=())))
    with masked(state.loaded.model, state.graph, state.plan.removed):
        state.coupled = measure.quality(silent, state.loaded, "coupled")
    measure.tell(work, "ppl_coupled", state.coupled)
    state.metrics |= {"without_dependency": True}


def evaluate(state: State) -> None:
    """Measure the model with every matrix cut by its own scores."""
    with without_dependency(state.loaded.model, state.graph, state.plan.removed, own_scores(state)):
        measure.after(state)
    state.metrics = {**pruning(state), **state.metrics}


def own_scores(state: State) -> OwnScores:
    """Scores of a group's structures, each estimated on that structure alone."""
    spec, model = state.work.spec, state.loaded.model
    given: dict[str, Any] = {"seed": spec.seed, "options": spec.prune.options}
    return lambda group: score_structures(
        model, state.graph, group, spec.prune.method, state.statistics, **given
    )
