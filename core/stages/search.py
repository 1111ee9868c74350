"""The stage that searches how much each group gives; all it measures is kept, so a resumed run goes on."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from core.evaluate.perplexity import perplexity
from core.plan.allocation import allocate, groups_in_scope
from core.plan.ranking import Curves
from core.plan.records import PruningPlan
from core.recover.reconstruct import input_means
from core.results.scores import AL_AM, Scores, ranked_by
from core.results.search import SEARCH, GroupCurve, Search, SearchTrial, write_search
from core.runs.artifacts import CHECKPOINT
from core.search.compensated import compensated
from core.search.kept import Kept
from core.search.losses import Losses
from core.search.search import Searcher, Trial
from core.spec.choices import SEARCHED
from core.spec.texts import SELF
from core.stages.steps import windows
from core.stages.work import State, Work

#: What was measured, by name, for a resumed run and for other targets.
MEASURED = "searched.json"
#: Scopes whose plans a search may set out from: of scores as they are, and as AL-AM makes them.
STARTS = (("local", "global", "standardised"), ("local", AL_AM))


def choosing_windows(work: Work, state: State) -> tuple[Tensor, dict[str, str]]:
    """As many tokens as calibrate, in windows as long as those of perplexity, (windows, window).

    Short ones would not tell what heads are worth that look far back.
    """
    data = work.spec.calibration
    longest = data.samples * data.length
    length = min(max(data.length, work.spec.evaluate.window_length), longest)
    if data.name == SELF:  # what the model wrote is as long as it is
        length = data.length
    return windows(work, state.loaded, samples=longest // length, length=length)


def order_of(scores: Scores, criterion: str) -> dict[str, NDArray[np.float32]]:
    """The scores that order units within a group: as AL-AM ranks them where it can."""
    return scores.get(ranked_by(criterion, AL_AM)) or scores[criterion]


def searched(work: Work, state: State, scores: Scores) -> PruningPlan:
    """The plan of scope `searched`: what each group gives is measured on the calibration text.

    Args:
        work: of the pruning run, or of a point of a sweep.
    """
    asked, model, graph = work.spec.prune, state.loaded.model, state.graph
    read, text = choosing_windows(work, state)
    fewer = read[: max(1, asked.search_tokens // read.shape[1])]
    means = input_means(model, graph, windows(work, state.loaded)[0]) if asked.biased else None
    about = Search(
        asked.method, text["name"], read.shape[1], fewer.numel(), read.numel(), asked.biased, {}, ()
    )
    name = f"{asked.method}-{fewer.numel()}-{'biased' if means else 'masks'}-{MEASURED}"
    measured, ranked = Kept(state.folder / CHECKPOINT / name, float), order_of(scores, asked.method)

    def start(scope: str) -> PruningPlan:
        arguments = asked.allocation() | {"scope": scope}
        made = allocate(graph, ranked, **arguments, timings=state.timings, method=asked.method)
        return replace(made, scope=SEARCHED)

    def plan(curves: Curves, share: float) -> PruningPlan:
        arguments = asked.allocation()
        if share < 1:
            arguments |= {"sparsity": share * plan(curves, 1.0).sparsity, "target": ""}
        return allocate(
            graph,
            ranked,
            **arguments,
            curves=curves,
            timings=state.timings,
            method=asked.method,
            model=graph.model,
        )

    def of_plan(tried: PruningPlan) -> float:
        with compensated(model, graph, tried.removed, means):
            return perplexity(model, read, on_progress=lambda *_: work.recorder.check_stop()).ppl

    def on_trial(trial: Trial) -> None:
        work.recorder.metric("search.front", 100 * trial.sparsity, trial.ppl)
        trials = tuple(SearchTrial(**asdict(each)) for each in searcher.trials)
        curves = {group: GroupCurve(each.gone, each.loss) for group, each in searcher.curves.items()}
        write_search(state.folder, replace(about, curves=curves, trials=trials))

    searcher = Searcher(
        Losses(model, graph, fewer, means), groups_in_scope(graph, asked.kinds, asked.layers), ranked,
        [start(scope) for scope in STARTS[ranked is not scores[asked.method]]],
        plan, of_plan, measured, asked.search_rounds, work.recorder.counter("measurements"), on_trial,
    )  # fmt: skip
    try:
        best = searcher.run()
    finally:
        measured.save()
    first, last = searcher.whole[0].ppl, min(trial.ppl for trial in searcher.whole)
    work.recorder.message(
        f"Perplexity of {text['name']}: {first:.4g} by the curves alone, {last:.4g} after the search"
    )
    work.recorder.artifact(str((state.folder / SEARCH).relative_to(work.run_dir)))
    return best
