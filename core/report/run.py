"""What a report reads of one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from core.errors import ArtifactError
from core.files import read_json
from core.results.efficiency import read_efficiency
from core.results.perplexity import read_perplexities
from core.results.tasks import read_benchmarks
from core.results.widths import WIDTHS
from core.runs.artifacts import EVENTS, METRICS, SAMPLES, read_plan, read_spec
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
        self.metrics: dict[str, Any] = _or_none(lambda: read_json(run_dir / METRICS)) or {}
        self.plan = _or_none(lambda: read_plan(run_dir))
        self.widths = _or_none(lambda: read_json(run_dir / WIDTHS))
        self.samples = _or_none(lambda: read_json(run_dir / SAMPLES)) or []
        self.perplexities = _or_none(lambda: read_perplexities(run_dir)) or {}
        self.scores = _or_none(lambda: read_benchmarks(run_dir)) or {}
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
