"""One run at work, and what is written down of it beside its artifacts."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from core.capture.statistics import Statistics
from core.criteria import CRITERIA
from core.errors import ArtifactError
from core.files import write_text
from core.graph.records import Graph
from core.memory.forecast import Forecast
from core.methods import criteria_of, method_of
from core.models.load import Loaded
from core.models.texts import Text, calibration_text, evaluation_text, same_text
from core.nuteprune.training import MaskTraining
from core.plan.latency import Timings
from core.plan.records import PruningPlan
from core.results.measured import Measured
from core.results.perplexity import Perplexity
from core.results.scores import Scores
from core.results.sweep import Sweep, planned
from core.runs.artifacts import SPEC, read_metrics, read_spec
from core.runs.recorder import Recorder
from core.spec.choices import SEARCHED
from core.spec.evaluate import PROTOCOLS
from core.spec.run import RunSpec
from core.spec.texts import NAMED, NONE, SELF
from core.spec.units import MANUAL

T = TypeVar("T")
LIBRARIES = ("torch", "transformers", "safetensors", "tokenizers", "numpy")


@dataclass(frozen=True)
class Work:
    """One run at work: what was asked, where it is written, who is told."""

    spec: RunSpec
    run_dir: Path
    recorder: Recorder


@dataclass
class Sweeping:
    """A sweep at work.

    Attributes:
        windows: what the perplexity of every text is measured on, each (windows, window).
        record: the points so far.
        measured: plans that were measured, as refitted, and their perplexities: criteria without data find
            the same plan for every text.
    """

    windows: tuple[Tensor, ...]
    record: Sweep
    measured: dict[Any, tuple[PruningPlan, tuple[Perplexity, ...]]] = field(default_factory=dict)


@dataclass
class State:
    """What a run has in hand: every stage reads what those before it have left, and leaves its own.

    Attributes:
        folder: where scores are kept: the run's directory, or one below it for a pass of a sweep.
        loaded: the model as it is by now: dense, cut, trained.
        statistics: what capture found, until the scores are made of it.
        worth: what whole blocks are worth, where some are dropped; timings: of the model on this machine,
            where a time is to be met.
        training: masks that were learned, until there is a plan; searched: the plan that a search found.
        sparsity: of a round, how much of what the rounds before have left goes.
        before: the dense model, measured; dense: a copy of it that is timed beside the final one.
        cut: the pruned model before it is trained, measured; coupled: the model under the plan with its
            couplings, where they are then ignored; coupled_recovered: that one trained; control: the dense
            model, trained alike; after: the final one, measured.
        metrics: what `metrics.json` will say; peak_gib: the most memory that a stage held; foreseen: what
            was said of it before the start.
    """

    work: Work
    folder: Path
    loaded: Loaded = field(init=False)
    graph: Graph = field(init=False)
    statistics: Statistics | None = None
    scores: Scores = field(default_factory=dict)
    worth: dict[str, float] | None = None
    timings: Timings | None = None
    training: MaskTraining = field(init=False)
    searched: PruningPlan | None = None
    plan: PruningPlan = field(init=False)
    sparsity: float = 0.0
    before: Measured | None = None
    dense: Loaded | None = None
    cut: Measured | None = None
    coupled: Measured | None = None
    coupled_recovered: Measured | None = None
    control: Measured | None = None
    after: Measured = field(init=False)
    sweep: Sweeping = field(init=False)
    metrics: dict[str, Any] = field(default_factory=dict)
    peak_gib: float = 0.0
    foreseen: Forecast | None = None


def kept(read: Callable[[Path], T], run_dir: Path) -> T | None:
    """An artifact from before the run was interrupted; None if it is missing or damaged."""
    try:
        return read(run_dir)
    except ArtifactError:
        return None


def versions() -> dict[str, str]:
    """What a result depends on: python and the libraries."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}}


def record_facts(work: Work) -> None:
    """Add library versions and the hashes of the texts to `spec.json`."""
    spec = work.spec
    evaluation, *others = (evaluation_of(spec, name) for name in spec.evaluate.texts)
    extra: dict[str, Any] = {"versions": versions()}
    extra["evaluation"] = {"name": evaluation.name, "sha256": evaluation.sha256}
    extra["evaluation_also"] = [{"name": text.name, "sha256": text.sha256} for text in others]
    if spec.goal in ("explore", "prune", "sweep") and spec.calibration.name not in (SELF, NONE):
        calibration = calibration_of(spec)
        extra["calibration"] = {"name": calibration.name, "sha256": calibration.sha256}
        if spec.prunes and reads_text(spec):
            warn_of_same(work, "calibration", calibration)
    add_facts(work, **extra)


def warn_of_same(work: Work, reader: str, read: Text) -> None:
    """Warn of every text that perplexity is measured on and `reader`, calibration or training, reads."""
    for name in work.spec.evaluate.texts:
        text = evaluation_of(work.spec, name)
        if same_text(read, text):
            work.recorder.warn(
                f"{reader} and evaluation read the same text, {text.name}, so its perplexity is no result."
            )
        elif name.partition(":")[0] in NAMED and read.name.split(" (")[0] == text.name.split(" (")[0]:
            work.recorder.warn(
                f"{reader} and evaluation read two splits of one data set, {read.name} and {text.name}, so "
                "its perplexity does not say how it is on other text."
            )


def calibration_of(spec: RunSpec) -> Text:
    """The text that scores units, as far as this run needs it. Raises DataError."""
    return calibration_text(spec.calibration.name, **reading(spec))


def windows_of(spec: RunSpec) -> int:
    """How many windows of the calibration text are read at most, those kept apart included."""
    if spec.goal == "sweep":
        return max(spec.sweep.samples)
    method = method_of(spec)
    return spec.calibration.samples + (method.component.apart(spec.prune.options) if method else 0)


def reading(spec: RunSpec) -> dict[str, Any]:
    """How much of the calibration text is read, and from where: alike wherever the run reads it."""
    samples = max(windows_of(spec), *spec.sweep.samples, spec.prune.recovery_samples)
    return {"tokens": samples * spec.calibration.length, "folder": spec.data_dir}


def evaluation_of(spec: RunSpec, name: str) -> Text:
    """A text that measures perplexity, as far as this run needs it. Raises DataError."""
    asked = spec.evaluate
    tokens = asked.tokens or PROTOCOLS[asked.protocol].tokens
    return evaluation_text(name, tokens=tokens, folder=spec.data_dir)


def silent(work: Work) -> Work:
    """The same work without answers to prompts."""
    return replace(work, spec=replace(work.spec, evaluate=replace(work.spec.evaluate, prompts=())))


def add_facts(work: Work, **facts: Any) -> None:
    """Add to what `spec.json` records in `extra`."""
    spec = read_spec(work.run_dir)
    if any(spec.extra.get(name) != fact for name, fact in facts.items()):
        write_text(work.run_dir / SPEC, replace(spec, extra={**spec.extra, **facts}).to_json())


def ablates(spec: RunSpec) -> bool:
    """Whether the run cuts every matrix by its own scores, and saves no model."""
    return spec.goal == "prune" and spec.prune.without_dependency


def needs(names: Sequence[str]) -> set[str]:
    """The statistics these criteria read; units chosen by hand need none."""
    return {statistic for name in names if name != MANUAL for statistic in CRITERIA[name].needs}


def refits(spec: RunSpec) -> set[str]:
    """How a run refits what stays, once or at some point of a sweep; empty if it does not."""
    ways = {spec.prune.reconstruct} if spec.goal == "prune" else set()
    ways |= {point.reconstruct for point in planned(spec)} if spec.goal == "sweep" else set()
    return ways - {"none"}


def reads_text(spec: RunSpec) -> bool:
    """Whether the model that a pruning run or a sweep makes depends on the calibration text."""
    ranking = criteria_of(spec) if spec.goal == "sweep" else [spec.prune.method]
    drops = any(spec.sweep.drops) if spec.goal == "sweep" else bool(spec.prune.drop)
    return method_of(spec) is not None or searches(spec) or bool(needs(ranking) or refits(spec) or drops)


def searches(spec: RunSpec) -> bool:
    """Whether measurements say how much each group gives, in a run or at some point of a sweep."""
    scopes = spec.sweep.scopes if spec.goal == "sweep" else (spec.prune.scope,)
    return spec.prunes and SEARCHED in scopes and not spec.prune.units and method_of(spec) is None


def source_metrics(work: Work) -> dict[str, Any]:
    """`metrics.json` of the run whose result this run started from; empty if there is none."""
    return kept(read_metrics, Path(work.spec.model.source)) or {}
