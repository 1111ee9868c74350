"""What a pruning run would leave of a model, before it is launched: exact widths and costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from core.errors import PruneError
from core.graph.records import Graph
from core.memory.forecast import Forecast
from core.methods import method_of
from core.plan.allocation import allocate
from core.plan.budgets import met
from core.plan.chosen import chosen_plan
from core.plan.cost import stored_bytes
from core.plan.latency import Timings
from core.plan.ranking import Scores
from core.plan.records import KV_BITS, PruningPlan
from core.results import words
from core.results.widths import widths
from core.runs.command_line import command_line
from core.runs.timings import newest_here
from core.ship.routes import ROUTES
from core.spec.budget import budgets_of, latency_of
from core.spec.choices import SEARCHED
from core.spec.prune import PruneSpec
from core.spec.recover import WEIGHTS, RecoverSpec
from core.spec.run import RunSpec
from core.spec.texts import reads_the_same
from pruneviz.data import exports
from pruneviz.figures import states
from pruneviz.figures.render import render

#: Below so many steps of training a target is not followed in earnest.
FEW_STEPS = 20
WIDTHS = {
    "query_heads": "Query heads per layer",
    "kv_heads": "Key-value heads per layer",
    "ffn": "Feed-forward channels per layer",
}


@dataclass(frozen=True)
class Line:
    """One quantity before and after; `write` puts a number in words."""

    title: str
    before: float
    after: float
    write: words.Writer

    @property
    def change(self) -> str:
        """In percent with its sign."""
        return words.difference(self.before, self.after)


@dataclass(frozen=True)
class PreviewInfo:
    """What would happen.

    Attributes:
        sparsity, sparsity_total: what the plan removes, of the parameters in scope and of all.
        lines: parameters, MACs, cache.
        widths: name -> (dense, narrowest, widest).
        exact: False where the plan was made without scores: the widths hold, the units do not.
        even: whether the scores will spread the target; without them every layer is shown to lose alike.
        learned, searched: whether training, or measurements, decide; every layer loses alike here, too.
        dropping: whether measurements will say which whole blocks go; the first are shown to.
        ways: title of a way to run the result, whether it is open, and why; empty where that is not known.
        recommended: what was left open, and what is taken; empty if nothing was.
        training: how what is left is trained; empty if it is not.
        answers: what is left of every quantity of a budget, in the units that were asked for.
        timed: when and where the times were taken that a latency is predicted with; empty without one.
        needs: how much it will hold, how much is free, how long it will take, as far as that is known.
        untimed: there are no such times yet, so everything else but `command` is empty: the run takes them.
        problem: why there is no plan; then everything else but `command` is empty.
    """

    command: str
    sparsity: float | None = None
    sparsity_total: float | None = None
    lines: list[Line] = field(default_factory=list)
    widths: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    exact: bool = False
    even: bool = False
    learned: bool = False
    searched: bool = False
    dropping: bool = False
    warnings: list[str] = field(default_factory=list)
    ways: list[tuple[str, bool, str]] = field(default_factory=list)
    recommended: str = ""
    training: str = ""
    answers: list[str] = field(default_factory=list)
    timed: str = ""
    untimed: bool = False
    needs: str = ""
    problem: str = ""


def preview_info(
    spec: RunSpec,
    graph: Graph | None,
    scores: Scores | None,
    config: Mapping[str, Any] | None = None,
    held: Forecast | None = None,
) -> PreviewInfo:
    """Make the plan this run would make. A model that was never analysed has no preview yet.

    Args:
        config: the dense model's `config.json`, to tell where the result will run.
        held: how much memory it will take.
    """
    spec = spec.settled()
    command, warnings, choice = command_line(spec), warnings_for(spec), spec.prune
    warnings += [held.advice] if held and held.advice else []
    said: dict[str, Any] = {
        "warnings": warnings,
        "recommended": spec.extra.get("recommended", ""),
        "training": _training(spec.recover),
        "needs": f"{words.sentence(held.words)}." if held else "",
    }
    if graph is None:
        return PreviewInfo(command, **said)
    timings = newest_here(graph, choice)
    if timings is None and latency_of(choice.target):
        return PreviewInfo(command, **said, untimed=True)
    try:
        plan = (
            chosen_plan(graph, choice.units, biased=choice.biased)
            if choice.units
            else allocate(graph, scores, **choice.allocation(), timings=timings)
        )
    except PruneError as error:
        return PreviewInfo(command, warnings=warnings, problem=str(error))
    ranked = scores is not None and choice.scope != SEARCHED and choice.rounds == 1 and not choice.drop
    exact = ranked or bool(choice.units)
    return PreviewInfo(
        command,
        plan.sparsity,
        plan.sparsity_total,
        [*_lines(plan), *_sizes(graph, plan, choice.target), *_times(graph, plan, choice.target, timings)],
        _ranges(graph, plan),
        exact=exact,
        dropping=bool(choice.drop),
        even=scores is None and not choice.units and choice.scope not in ("local", SEARCHED),
        searched=choice.scope == SEARCHED and not choice.units,
        learned=method_of(spec) is not None,
        ways=_ways(graph, plan if exact else _like(graph, plan, choice, timings), config),
        **said,
        answers=[each.words for each in met(graph, choice.target, plan, timings)],
        timed=f"on {timings.machine}, {words.age(timings.at)}" if timings else "",
    )


def _training(recover: RecoverSpec) -> str:
    if recover.method == "none":
        return ""
    what = "all weights" if recover.targets == WEIGHTS else "LoRA"
    who = f"the dense model teaches {what}" if recover.distils else f"{what} learns the next token"
    long = f"{recover.steps:,} steps" if recover.steps else f"{recover.epochs} passes over the text, in steps"
    return f"{who}: {long} of {recover.batch} sequences of {recover.length} tokens, from {recover.data}"


def _like(graph: Graph, plan: PruningPlan, choice: PruneSpec, timings: Timings | None) -> PruningPlan:
    """A plan as uneven as the real one will be, whose units are not known yet: drawn by lot."""
    if choice.uniform:
        return plan
    lots = np.random.default_rng(0)
    scores = {group.id: lots.random(group.units) for group in graph.groups}
    scope = "local" if choice.scope == "local" else "global"
    try:
        return allocate(graph, scores, **{**choice.allocation(), "scope": scope}, timings=timings)
    except PruneError:
        return plan


def _ways(graph: Graph, plan: PruningPlan, config: Mapping[str, Any] | None) -> list[tuple[str, bool, str]]:
    verdicts = exports.expected(graph, plan, config) if config else {}
    return [
        (ROUTES[name].title, each.possible, words.sentence(each.reason)) for name, each in verdicts.items()
    ]


def warnings_for(spec: RunSpec) -> list[str]:
    """What is allowed but should not go unsaid."""
    warnings = []
    if (name := spec.calibration.name) in spec.evaluate.texts and reads_the_same(name):
        warnings.append(
            f"Calibration and perplexity read the same text, {name}: that is no measurement on it."
        )
    warnings += spec.settled().idle
    if spec.prune.share is None:
        return warnings
    if spec.prune.sparsity > 0.5 and not method_of(spec):
        warnings.append("Above 50 % a model usually falls apart unless it is trained again afterwards.")
    if spec.prune.sparsity == 0 and not spec.prune.drop:
        warnings.append("At 0 nothing is removed: the run measures and saves the dense model.")
    return [*warnings, *_training_warnings(spec)]


def _training_warnings(spec: RunSpec) -> list[str]:
    """What to know of a training before it takes its time."""
    method = method_of(spec)
    if method is None:
        return []
    settings, warnings = method.settings(spec.prune.options), []
    if settings.steps < FEW_STEPS:
        warnings.append(
            f"{settings.steps} steps are too few to learn much: the units that go are mostly those that "
            "were worth least at the start. Take a hundred or more."
        )
    windows, batch = spec.calibration.samples, settings.batch
    if windows < batch:
        warnings.append(
            f"A step reads {batch} windows, but there are only {words.count(windows)}: some twice."
        )
    return warnings


def _lines(plan: PruningPlan) -> list[Line]:
    before, after = plan.before, plan.after
    assert before and after, "a plan is allocated with its costs"
    cache = f"Key-value cache per token, at {KV_BITS} bits"
    return [
        Line("Parameters", before.params, after.params, words.count),
        Line("Multiply-adds per token", before.macs_per_token, after.macs_per_token, words.count),
        Line(cache, before.kv_bytes_per_token, after.kv_bytes_per_token, words.size),
    ]


def _sizes(graph: Graph, plan: PruningPlan, target: str) -> list[Line]:
    """The bytes of all weights in each packing that the budget is of."""
    return [
        Line(
            f"Weights at {budget.packing}",
            stored_bytes(graph, {}, budget.packing),
            stored_bytes(graph, plan.removed, budget.packing, plan.biases),
            words.size,
        )
        for budget in budgets_of(target)
        if budget.quantity == "size"
    ]


def _times(graph: Graph, plan: PruningPlan, target: str, timings: Timings | None) -> list[Line]:
    """What is predicted of the time that the budget is of."""
    budget = latency_of(target)
    if budget is None or timings is None:
        return []
    predicted = timings.predicted(graph, plan.removed)
    return [Line(f"Time for {budget.reads.words}", timings.dense_ms, predicted, words.time_ms)]


def _ranges(graph: Graph, plan: PruningPlan) -> dict[str, tuple[int, int, int]]:
    left = widths(graph, plan)
    return {
        key: (
            left["dense"][key],
            min(row[key] for row in left["layers"]),
            max(row[key] for row in left["layers"]),
        )
        for key in WIDTHS
        if left["layers"] and left["dense"][key]
    }


def preview_html(info: PreviewInfo) -> Markup:
    """Costs and widths before and after, then warnings."""
    if info.problem:
        problem = states.error_html(info.problem, title="This cannot be launched yet")
        return problem + states.notes_html(*info.warnings)
    rows = [(each.title, each.write(each.before), each.write(each.after), each.change) for each in info.lines]
    rows += [
        (WIDTHS[key], f"{dense:,}", _range(low, high), words.difference(dense, (low + high) / 2))
        for key, (dense, low, high) in info.widths.items()
    ]
    return render("preview.html", info=info, rows=rows, basis=_basis(info))


def _basis(info: PreviewInfo) -> str:
    if info.exact:
        return "Exact: the units are known."
    if info.dropping:
        return "Sizes are those without the first blocks; which blocks go is measured in the run."
    if info.learned:
        return "The total is exact; how much each layer gives is learned."
    if info.searched:
        return "The total is exact; how much each layer gives is measured in the run."
    if info.even:
        return "The total is exact; how much each layer gives follows from the scores."
    return "Sizes are exact; which units go follows from the scores."


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
