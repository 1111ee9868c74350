"""The run behind `--without-dependency`: one plan measured with and without its couplings."""

from __future__ import annotations

from core.criteria.scoring import check_alone
from core.errors import SpecError
from core.methods import method_of
from core.spec.run import RunSpec
from core.stages import measure as measures
from core.stages import metrics as results
from core.stages import steps as stages
from core.stages.work import Work, needs
from core.surgery.ablation import without_dependency
from core.surgery.masks import masked


def check(spec: RunSpec) -> None:
    """Raises SpecError if the method does not rank units, or cannot rank those of one matrix by itself."""
    asked = spec.prune
    if method_of(spec) or asked.reconstruct != "none":
        raise SpecError(
            "without_dependency only cuts: it takes a method that ranks units and reconstruct none, got "
            f"{asked.method} and {asked.reconstruct}."
        )
    check_alone(asked.method)


def ablate(work: Work) -> None:
    """Measure one plan twice: as it is, and with every matrix cut by its own scores. No model is saved."""
    work, criteria = measures.untimed(work), [work.spec.prune.method]
    capture = ["capture"] if needs(criteria) else []
    work.recorder.begin(["load", "graph", "baseline", *capture, "score", "plan", "measure", "evaluate"])
    loaded = stages.load(work)
    graph = stages.graph(work, loaded)
    before = measures.baseline(work, loaded)
    statistics = stages.capture(work, loaded, graph, criteria)
    scores = stages.score(work, loaded, graph, criteria, statistics)
    plan = stages.plan(work, graph, scores[work.spec.prune.method])
    own = stages.own_scores(work, loaded, graph, statistics)
    with masked(loaded.model, graph, plan.removed):
        coupled = measures.coupled(work, loaded)
    with without_dependency(loaded.model, graph, plan.removed, own):
        _, after = measures.after(work, loaded, before, None)
    metrics = results.pruning(work, plan, before, after)
    ablated = {"ppl_coupled": coupled.ppl, "without_dependency": True}
    results.write(work, {**metrics, **ablated, "seconds": work.recorder.seconds})
