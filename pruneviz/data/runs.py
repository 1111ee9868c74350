"""Run directory -> typed records. Everything the dashboard shows of runs is read here, and only read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from core.errors import ArtifactError
from core.files import DAMAGES, json_text, reading, there
from core.graph.records import Graph
from core.plan.composed import what_is_left
from core.plan.records import PruningPlan
from core.results import efficiency as efficiency_results
from core.results import perplexity as perplexity_results
from core.results import tasks as task_results
from core.results.efficiency import EFFICIENCY, Efficiency
from core.results.perplexity import PERPLEXITY, Perplexity
from core.results.sweep import SWEEP, read_sweep
from core.results.tasks import BENCHMARKS, BenchmarkResult
from core.runs import watch
from core.runs.artifacts import (
    GROUPS,
    METRICS,
    MODEL,
    PLAN,
    SAMPLES,
    SPEC,
    read_graph,
    read_metrics,
    read_spec,
)
from core.runs.artifacts import read_plan as read_kept_plan
from core.runs.artifacts import read_samples as read_kept_samples
from core.runs.events import Event
from core.runs.status import ENDED, STATUS, Status
from core.spec.run import RunSpec

T = TypeVar("T")
#: Stages that train, and end with a checkpoint when they are stopped.
TRAINING = ("train", "recover_coupled", "recover")
LIVE = ("queued", "starting", "running", "stopping")


@dataclass(frozen=True)
class RunRecord:
    """One run directory as read just now.

    Attributes:
        id: the directory's name.
        spec, status: None where the file is damaged; `damaged` then says what is wrong.
        metrics: `metrics.json`, empty until the run is measured.
        example: it came with the program, without weights, and is only read.
    """

    id: str
    path: Path
    spec: RunSpec | None
    status: Status
    metrics: dict[str, Any]
    damaged: str = ""
    example: bool = False

    @property
    def state(self) -> str:
        """One of `core.runs.status.STATES`, or `damaged`."""
        return "damaged" if self.damaged else self.status.state

    @property
    def live(self) -> bool:
        """Whether something may still change by itself."""
        return self.state in LIVE

    @property
    def model(self) -> str:
        """The model's source, empty for a damaged spec."""
        return self.spec.model.source if self.spec else ""

    def has(self, artifact: str) -> bool:
        """Whether the directory holds this file, e.g. `core.runs.artifacts.GROUPS`."""
        return there(self.path / artifact)


def read_run(path: Path) -> RunRecord:
    """Read one run directory as it stands. Never raises on damaged files: the record says what is wrong.

    A run whose worker is gone is turned into `crashed` on the way. One that has ended is read again only
    once one of its files has changed: every page asks for every run all the time.
    """
    stamp = tuple(_stamp(path / name) for name in (STATUS, SPEC, METRICS))
    known = _as_it_was(path, stamp)
    return known if known.state in ENDED else _read(path)


@lru_cache(maxsize=2048)
def _as_it_was(path: Path, stamp: tuple[Any, ...]) -> RunRecord:
    return _read(path)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file's content: these files are moved into place, so it is another file then."""
    try:
        stat = path.lstat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _read(path: Path) -> RunRecord:
    status, spec, metrics, damaged = watch.refresh(path), None, {}, ""
    if status.state == watch.DAMAGED:
        damaged = (status.error or {}).get("message", "its files cannot be read")
    try:
        spec = read_spec(path)
        if os.path.lexists(path / METRICS):
            metrics = read_metrics(path)
    except ArtifactError as error:
        damaged = damaged or str(error)
    return RunRecord(path.name, path, spec, status, metrics, damaged)


def list_runs(runs_dir: Path) -> list[RunRecord]:
    """All runs, newest first."""
    records = [read_run(path) for path in watch.list_runs(runs_dir)]
    return sorted(records, key=lambda record: (record.status.created, record.id), reverse=True)


def source_key(source: str) -> str:
    """What two ways of naming one model have in common: a path is made absolute, as runs do."""
    return source if source == "demo" or not Path(source).exists() else str(Path(source).absolute())


def find(runs_dir: Path, run_id: str) -> RunRecord | None:
    """The run with this id, or None."""
    path = next((path for path in watch.list_runs(runs_dir) if path.name == run_id), None)
    return read_run(path) if path else None


def latest(records: Sequence[RunRecord], model: str, artifact: str) -> Path | None:
    """The first of these runs that is of this model and holds `artifact`, whatever its state.

    Only runs that describe the model itself count: a prune run's groups are those of its dense model too.
    """
    for record in records:
        if record.has(artifact) and source_key(record.model) == source_key(model):
            return record.path
    return None


def live_run(runs_dir: Path, model: str, goal: str = "explore") -> RunRecord | None:
    """The newest run of this model and goal that is still going, or None."""
    for record in list_runs(runs_dir):
        wanted = record.live and record.spec is not None and record.spec.goal == goal
        if wanted and source_key(record.model) == source_key(model):
            return record
    return None


def share_done(record: RunRecord) -> float:
    """Share of a run that is done: of a sweep its points, of others its stages, counting each alike."""
    status = record.status
    if status.state == "finished":
        return 1.0
    if points := points_done(record):
        return min(1.0, points[0] / max(points[1], 1))
    if not status.stages or status.stage not in status.stages:
        return 0.0
    return (status.stages.index(status.stage) + min(max(status.progress, 0.0), 1.0)) / len(status.stages)


def points_done(record: RunRecord) -> tuple[int, int] | None:
    """How many points of a sweep are measured, and how many will be; None for other runs."""
    if record.spec is None or record.spec.goal != "sweep":
        return None
    try:
        sweep = _read_once(read_sweep, record.path, changed(record.path / SWEEP))
    except ArtifactError:  # there is none before the dense model is measured; the tab tells of a damaged one
        return 0, record.spec.sweep.points
    return len(sweep.points), sweep.planned


def training_notes(record: RunRecord, events: list[Event]) -> list[str]:
    """What stopping does to a run that trains: said while it stops, and once it has."""
    texts = [str(event.data.get("text", "")) for event in events if event.type == "message"]
    if record.state == "stopping" and record.status.stage in TRAINING:
        return ["The step at work is finished and saved first; Resume then goes on after it."]
    if record.state == "stopped":
        return [
            f"{text}. Resume goes on after it."
            for text in texts[-1:]
            if text.startswith("Stopped after step")
        ]
    return []


def ahead_of(record: RunRecord) -> list[str]:
    """Ids of the runs that a queued one waits for, the next first; what a cluster runs holds nobody up."""
    own = record.status
    others = [
        other
        for other in list_runs(record.path.parent)
        if own.executor == other.status.executor == "local"
        and (other.state in watch.ACTIVE or (other.state == "queued" and other.status.created < own.created))
    ]
    return [other.id for other in sorted(others, key=lambda each: each.status.created)]


def read_plan(run_dir: Path) -> PruningPlan | None:
    """`plan.json`, or None while there is none. Raises ArtifactError if it is damaged."""
    return read_kept_plan(run_dir) if (run_dir / PLAN).exists() else None


def graph_of(run_dir: Path) -> Graph:
    """`groups.json`, kept in memory until the file changes. Raises ArtifactError."""
    return _graph(run_dir, changed(run_dir / GROUPS))


@lru_cache(maxsize=4)
def _graph(run_dir: Path, changed: int) -> Graph:
    return read_graph(run_dir)


def graph_left(model: str) -> Graph | None:
    """What the run of this folder left of its groups; None if it left no model. Raises ArtifactError."""
    folder = Path(model) / MODEL
    if not (folder / PLAN).is_file():
        return None
    return _graph_left(folder, changed(folder / GROUPS), changed(folder / PLAN))


@lru_cache(maxsize=2)
def _graph_left(folder: Path, *changed: int) -> Graph:
    with reading(folder / PLAN, "run the pruning again"):
        return what_is_left(read_graph(folder), read_kept_plan(folder), model=folder.parent.name)


def read_samples(run_dir: Path) -> list[dict[str, Any]]:
    """`samples.json`, or an empty list. Raises ArtifactError if it is damaged."""
    return read_kept_samples(run_dir) if (run_dir / SAMPLES).exists() else []


def read_benchmarks(run_dir: Path) -> dict[str, BenchmarkResult]:
    """`benchmarks.json`: side -> what was scored, with the questions; empty if there is none.

    Raises:
        ArtifactError: it is damaged.
    """
    return _read_once(task_results.read_benchmarks, run_dir, changed(run_dir / BENCHMARKS))


def read_perplexities(run_dir: Path) -> dict[str, tuple[Perplexity, ...]]:
    """`perplexity.json`: side -> one per text, window by window; empty if there is none, or it is damaged."""
    try:
        return _read_once(perplexity_results.read_perplexities, run_dir, changed(run_dir / PERPLEXITY))
    except ArtifactError:  # the value itself is in metrics.json; its noise is then unknown, which is said
        return {}


def read_efficiency(run_dir: Path) -> dict[str, Efficiency]:
    """`efficiency.json`: side -> what it costs, round by round; empty if there is none, or it is damaged."""
    try:
        return _read_once(efficiency_results.read_efficiency, run_dir, changed(run_dir / EFFICIENCY))
    except ArtifactError:  # the medians are in metrics.json; their noise is then unknown, which is said
        return {}


def changed(path: Path) -> int:
    """When a file was last written; 0 if there is none."""
    return path.lstat().st_mtime_ns if there(path) else 0


@lru_cache(maxsize=128)
def _read_once(read: Callable[[Path], T], run_dir: Path, changed: int) -> T:
    """What `read` makes of a run directory, kept until the file changes: with its questions it is large."""
    return read(run_dir)


def spec_json(record: RunRecord) -> str:
    """The run's spec for people to read, as it lies on disk."""
    try:
        return json.dumps(json.loads(json_text(record.path / SPEC)), indent=2)
    except DAMAGES as error:
        return f"spec.json cannot be read: {error}"
