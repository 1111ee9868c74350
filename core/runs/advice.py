"""What to do: three ways to a budget, with what each takes, what it gave of the demo model, and doubts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from core.errors import ArtifactError, NotPrunableError
from core.graph.records import Graph
from core.plan.allocation import allocate
from core.plan.budgets import met
from core.plan.cost import cost
from core.results.demo_figures import AT_20, AT_40, DEMO_MACS, DENSE, PROTOCOL, TEXTS
from core.results.words import count, duration, memory, percent
from core.runs.artifacts import METRICS, read_metrics, read_spec
from core.runs.command_line import command_line
from core.runs.timings import newest_here
from core.runs.watch import list_runs
from core.spec.budget import latency_of
from core.spec.efforts import EFFORTS, SAYS, with_effort
from core.spec.fields import field_of
from core.spec.prune import PruneSpec
from core.spec.recommended import BEST, FORWARD
from core.spec.recover import recipe_of
from core.spec.run import RunSpec
from core.spec.texts import MIXED

#: What starting, loading and saving take of any model, in seconds.
START_S = 10
#: Shares around those that were measured; beyond, a figure says little.
_NEAR = (0.15, 0.3)
#: What makes a run longer than its effort says.
_LONGER = (
    *("prune.rounds", "prune.drop", "prune.without_dependency"),
    *(f"evaluate.{name}" for name in ("tokens", "protocol", "also", "int8")),
)
_UNSEEN = (
    f"{FORWARD} has to see what matrices read, which nobody can where experts lie in one stack, and {BEST} "
    "reads gradients, which weights that rest elsewhere do not get: load them all into one memory."
)
#: The share of the block parameters that goes, what is left in words, and why nothing can.
Left = tuple[float | None, str, str]


@dataclass(frozen=True)
class Advice:
    """A way to the budget.

    Attributes:
        effort: of `core.spec.efforts`; title, about: what it is; spec: the run to launch, and its command.
        after: what is left, in words; empty where that is not known yet.
        seconds, seconds_from: how long it will take, and what says so.
        gib: of memory at most, None if that cannot be said.
        measured: what it gave of the demo model; doubts: what is not known.
        problem: why it cannot be launched; empty if it can.
    """

    effort: str
    title: str
    about: str
    spec: RunSpec
    command: str
    after: str
    seconds: float
    seconds_from: str
    gib: float | None
    measured: str
    doubts: tuple[str, ...]
    problem: str = ""

    @property
    def takes(self) -> str:
        """Time and memory in words."""
        held = "" if self.gib is None else f", about {memory(self.gib)} of memory here"
        return f"about {duration(self.seconds)} ({self.seconds_from}){held}"


def advise(
    asked: RunSpec,
    graph: Graph,
    finished: Sequence[tuple[RunSpec, dict[str, Any]]],
    held: Callable[[RunSpec], float | None],
    scanned: bool = False,
) -> list[Advice]:
    """Three ways to prune a model to what is asked, from no training to an hour of it.

    Args:
        asked: model, sparsity or budget, kinds and layers; its texts stay.
        graph: of the model as it is; finished: runs of it, each with its `metrics.json`.
        held: what memory a run will hold, in GiB.
        scanned: whether a scan of its layers is kept.
    """
    ways = list[Advice]()  # most differ by training alone: one plan is then enough
    left = list[tuple[dict[str, Any], Left]]()
    unseen = graph.unseen(*asked.prune.kinds)
    for name in EFFORTS:
        spec = with_effort(asked, name)
        # Without scores every scope takes the same share of every group.
        settled = spec.settled(unseen=unseen).prune
        spread = settled.allocation() | {"scope": "local"}
        same = next((found for like, found in left if like == spread), None)
        left.append((spread, same or _left(spec.prune, spread, graph)))
        if unseen and settled.method == FORWARD:
            left[-1] = (spread, (*left[-1][1][:2], _UNSEEN))
        ways.append(_way(name, spec, graph, left[-1][1], finished, held, scanned))
    return ways


def takes(spec: RunSpec, macs: int, finished: Sequence[tuple[RunSpec, dict[str, Any]]]) -> str:
    """How long a run will take, in words; empty where nothing like it was measured.

    Args:
        spec: settled; macs: multiply-adds per token of the dense model; finished: see `advise`.
    """
    name = next((name for name in EFFORTS if _is_of(spec, name)), None)
    usual = RunSpec()
    if name is None or any(field_of(spec, path) != field_of(usual, path) for path in _LONGER):
        return ""
    seconds, said = _seconds(name, macs, finished)
    more = ", and its benchmarks on top" if spec.evaluate.tasks else ""
    return f"about {duration(seconds)} ({said}){more}"


def finished_runs(runs_dir: Path, source: str) -> list[tuple[RunSpec, dict[str, Any]]]:
    """The runs of a folder that pruned this model and were measured, each with its metrics."""
    pairs = list[tuple[RunSpec, dict[str, Any]]]()
    for run_dir in list_runs(runs_dir):
        with suppress(ArtifactError):  # a damaged run has nothing to say
            spec = read_spec(run_dir)
            if spec.model.source == source and (run_dir / METRICS).is_file():
                pairs.append((spec, read_metrics(run_dir)))
    return pairs


def _way(
    name: str,
    spec: RunSpec,
    graph: Graph,
    left: Left,
    finished: Sequence[tuple[RunSpec, dict[str, Any]]],
    held: Callable[[RunSpec], float | None],
    scanned: bool,
) -> Advice:
    effort, dense = EFFORTS[name], cost(graph, {})
    share, after, problem = left
    known = spec.settled(unseen=graph.unseen(*spec.prune.kinds))
    seconds, source = _seconds(name, dense.macs_per_token, finished)
    return Advice(
        name, effort.title, effort.about, spec, command_line(known), after, seconds, source, held(spec),
        _measured(name), tuple(_doubts(name, spec, share, scanned)), problem,
    )  # fmt: skip


def _left(prune: PruneSpec, spread: dict[str, Any], graph: Graph) -> Left:
    """What a plan of this budget, spread like this, leaves."""
    timings = newest_here(graph, prune)
    if timings is None and latency_of(prune.target):
        return None, "known once this machine is timed, which the run does first", ""
    try:
        plan = allocate(graph, None, **spread, timings=timings)
    except NotPrunableError as error:
        return None, "", str(error)
    assert plan.before and plan.after, "a plan is allocated with its costs"
    left = f"{count(plan.after.params)} of {count(plan.before.params)} parameters"
    answers = [each.words for each in met(graph, prune.target, plan, timings)]
    left = "; ".join(answers) or left
    return plan.sparsity, f"{left}; {percent(plan.sparsity)} of the block parameters go", ""


def _seconds(name: str, macs: int, finished: Sequence[tuple[RunSpec, dict[str, Any]]]) -> tuple[float, str]:
    """How long it will take: as such runs of this model did, else as the demo model's, by multiply-adds."""
    own = [
        float(metrics["seconds"])
        for spec, metrics in finished
        if metrics.get("seconds") and _is_of(spec, name)
    ]
    if own:
        return median(own), f"as {len(own)} such run{'s' * (len(own) > 1)} of this model took"
    minutes = AT_20[name].minutes
    ratio = macs / DEMO_MACS
    said = (
        "as the demo model on two cores"
        if abs(ratio - 1) < 0.01
        else f"{ratio:.3g} x the demo model’s on two cores"
    )
    return START_S + 60 * minutes * ratio, said


def _is_of(spec: RunSpec, name: str) -> bool:
    """Whether a run did what an effort asks for; its own spec names what was recommended."""
    if spec.goal != "prune" or spec.prune.units:
        return False
    asked, recipe = with_effort(spec, name), EFFORTS[name].recipe or None
    same = any(  # with and without what matrices read
        all(field_of(spec, path) == field_of(asked.settled(unseen=unseen), path) for path in SAYS)
        for unseen in (False, True)
    )
    like = asked.recover
    return same and spec.recover.method == like.method and recipe_of(spec.recover) == recipe


def _measured(name: str) -> str:
    """What the way gave of the demo model."""
    figure = AT_20[name]
    return (
        f"Demo model, 20 %: perplexity {DENSE.ppl} to {figure.ppl} on {TEXTS[0]}, "
        f"{DENSE.book} to {figure.book} on the {TEXTS[1]}; calibrated on {figure.calibrated}, {PROTOCOL}."
    )


def _doubts(name: str, spec: RunSpec, share: float | None, scanned: bool) -> list[str]:
    """What is not known, the weightiest first."""
    doubts = []
    if spec.model.source != "demo":
        doubts.append("How this model takes it: the figures are of another one.")
    if share is not None and share > _NEAR[1]:
        doubts.append(
            f"Figures are of 20 %, and {percent(share, 0)} go here. At 40 % the untrained demo model is at "
            f"{AT_40.ppl} on {TEXTS[0]}."
        )
    elif share is not None and share < _NEAR[0]:
        doubts.append(f"Figures are of 20 %, and only {percent(share, 0)} go here: it should be better.")
    if name == "recommended":
        drag = "drag this budget over the scan on Sensitivity to see, and to prune by it."
        scan = "scan them on Sensitivity, minutes, before you cut."
        doubts.append(f"Whether layers differ more than the rule allows for: {drag if scanned else scan}")
        if spec.calibration.name == MIXED:
            doubts.append("What your text would change: the cut reads facts and speeches (--calibration).")
    if EFFORTS[name].recipe:
        doubts.append("How it does on your task: the training text is a general one unless you give yours.")
    return [*doubts, "How long it takes on a GPU: that is not predicted."]
