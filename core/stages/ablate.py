"""The run behind `--without-dependency`: one plan with and without its couplings, trained too if asked for.

Source: LLM-Pruner, arXiv:2305.11627, Table 6. Nothing of it is saved.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from core.criteria.scoring import score_structures
from core.models.again import cut_loaded
from core.results.measured import Measured
from core.spec.run import RunSpec
from core.stages import measure, recover
from core.stages.metrics import pruning
from core.stages.work import State, silent
from core.surgery.ablation import OwnScores, decouple, without_dependency
from core.surgery.masks import masked

#: The coupled cut after its training, as a resumed run finds it.
_TRAINED = "coupled.json"


def untimed(spec: RunSpec) -> RunSpec:
    """The same run without measuring efficiency: masks do not make a model faster."""
    return replace(spec, evaluate=replace(spec.evaluate, efficiency=False))


def measure_coupled(state: State) -> None:
    """Measure the plan as it is, under masks: perplexity alone."""
    work = state.work
    with masked(state.loaded.model, state.graph, state.plan.removed):
        state.coupled = measure.quality(silent(work), state.loaded, "coupled")
    measure.tell(work, "ppl_coupled", state.coupled)
    state.metrics |= {"without_dependency": True}


def recover_coupled(state: State) -> None:
    """Cut a copy of the model by the plan, train it and measure it: perplexity alone."""
    work = state.work
    state.coupled_recovered = measure.kept_or(work, _TRAINED, lambda: _trained_coupled(state))
    measure.tell(work, "ppl_coupled_recovered", state.coupled_recovered)


def _trained_coupled(state: State) -> Measured:
    whole = replace(state.loaded, model=copy.deepcopy(state.loaded.model))
    loaded = cut_loaded(whole, state.graph, state.plan)
    facts = recover.recover(state.work, loaded, state.graph, recover.COUPLED)
    state.work.recorder.message(
        f"With couplings the best updates are those of step {facts['recover_best_step']}"
    )
    return measure.quality(silent(state.work), loaded, "coupled_recovered")


def cut_alone(state: State) -> None:
    """Cut every matrix by its own scores, for good, and measure what is left before it is trained."""
    model, removed = state.loaded.model, state.plan.removed
    decouple(model, state.graph, removed, own_scores(state))
    state.loaded = cut_loaded(state.loaded, state.graph, state.plan)
    measure.before_training(state)


def evaluate(state: State) -> None:
    """Measure the model with every matrix cut by its own scores, or what training made of it."""
    if state.cut:
        measure.after(state)
    else:
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
