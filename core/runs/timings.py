"""Times of models on this machine, kept in this installation's state for the next run and for previews."""

from __future__ import annotations

import hashlib
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from core.errors import ArtifactError
from core.files import read_record, write_json
from core.graph.records import Graph
from core.plan.budgets import step_of
from core.plan.latency import Timings, fingerprint
from core.runs.origin import state_dir
from core.spec.budget import latency_of
from core.spec.prune import PruneSpec

LATENCY = "latency.json"


@dataclass(frozen=True)
class Reached:
    """What a run aimed at and what came of it, as in `latency.json`, in milliseconds.

    Attributes:
        timings: what the prediction was made with; target: the most that was asked for.
        predicted: of the plan; measured: the median once it was cut; spread: slowest minus fastest.
        dense: the dense model timed in turns with it; None where memory did not hold both.
    """

    timings: Timings
    target: float
    predicted: float
    measured: float
    spread: float
    dense: float | None

    @property
    def error(self) -> float:
        """By how much more than predicted it takes, as a share."""
        return self.measured / self.predicted - 1

    @property
    def was(self) -> float:
        """What the dense model takes: timed in turns with it, or before."""
        return self.timings.dense_ms if self.dense is None else self.dense

    @property
    def drift(self) -> float | None:
        """By how much longer the dense model takes than when the prediction was made, as a share."""
        return None if self.dense is None else self.dense / self.timings.dense_ms - 1


def keep_timings(timings: Timings) -> None:
    """Keep the times of a model in the place of older ones on this machine. Raises StorageError."""
    of = hashlib.sha256(repr((timings.reads, timings.multiple, timings.machine)).encode()).hexdigest()[:16]
    path = _folder() / f"{timings.model}-{of}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(timings))


def kept_timings(graph: Graph, prune: PruneSpec) -> list[Timings]:
    """What is kept of a model for the latency that is asked for, of any machine, newest first."""
    budget = latency_of(prune.target)
    if budget is None:
        return []
    wanted = (str(budget.reads), step_of(prune.target, prune.multiple))
    fitting = [each for each in _every(graph) if (each.reads, each.multiple) == wanted]
    return sorted(fitting, key=lambda each: -each.at)


def _every(graph: Graph) -> list[Timings]:
    kept = list[Timings]()
    for path in _folder().glob(f"{fingerprint(graph)}-*.json"):
        with suppress(ArtifactError):  # a damaged one counts as none: it is measured again
            kept.append(read_record(path, Timings))
    return kept


def newest_here(graph: Graph, prune: PruneSpec) -> Timings | None:
    """The newest times of this host, which a run most likely goes by; None if there are none."""
    host = platform.node()
    return next((each for each in kept_timings(graph, prune) if each.machine.host == host), None)


def timings_here(graph: Graph) -> Timings | None:
    """The newest times of a model on this host, whatever was read; None if there are none."""
    every = [each for each in _every(graph) if each.machine.host == platform.node() and each.multiple == 1]
    return max(every, key=lambda each: each.at, default=None)


def read_reached(run_dir: Path) -> Reached | None:
    """`latency.json`; None without one. Raises ArtifactError if it is damaged."""
    path = run_dir / LATENCY
    return read_record(path, Reached, "run it again") if path.exists() else None


def _folder() -> Path:
    return state_dir() / "latency"
