"""What a report reads of one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from core.errors import ArtifactError
from core.results.efficiency import read_efficiency
from core.results.perplexity import read_perplexities
from core.results.tasks import read_benchmarks
from core.results.widths import read_widths
from core.runs.artifacts import EVENTS, read_metrics, read_plan, read_samples, read_spec
from core.runs.events import Event, EventReader
from core.runs.status import read_status
from core.spec.run import RunSpec

T = TypeVar("T")


class Run:
    """What a run left behind; a part that is missing or damaged is None."""

    def __init__(self, run_dir: Path) -> None:
        self.id = run_dir.name
        self.spec: RunSpec = read_spec(run_dir)
        self.status = read_status(run_dir)
        self.metrics: dict[str, Any] = _or_none(lambda: read_metrics(run_dir)) or {}
        self.plan = _or_none(lambda: read_plan(run_dir))
        self.widths = _or_none(lambda: read_widths(run_dir))
        self.samples = _or_none(lambda: read_samples(run_dir)) or []
        self.perplexities = _or_none(lambda: read_perplexities(run_dir)) or {}
        benchmarks = _or_none(lambda: read_benchmarks(run_dir)) or {}
        self.scores = {side: result.tasks for side, result in benchmarks.items()}
        self.efficiency = _or_none(lambda: read_efficiency(run_dir)) or {}
        self.events: list[Event] = EventReader(run_dir / EVENTS).read()

    @property
    def title(self) -> str:
        """The name people gave it, or its id."""
        return self.spec.name or self.id


def _or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except ArtifactError:
        return None
