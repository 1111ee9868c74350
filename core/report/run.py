"""What a report reads of one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from core import artifacts
from core.artifacts import EVENTS, METRICS, SAMPLES, WIDTHS
from core.errors import ArtifactError
from core.evaluate.efficiency_results import read_efficiency
from core.evaluate.perplexity_results import read_perplexities
from core.evaluate.task_results import read_benchmarks
from core.events import Event, EventReader
from core.spec import RunSpec

T = TypeVar("T")


class Run:
    """What a run left behind; a part that is missing or damaged is None."""

    def __init__(self, run_dir: Path) -> None:
        self.id = run_dir.name
        self.spec: RunSpec = artifacts.read_spec(run_dir)
        self.status = artifacts.read_status(run_dir)
        self.metrics: dict[str, Any] = _or_none(lambda: artifacts.read_json(run_dir / METRICS)) or {}
        self.plan = _or_none(lambda: artifacts.read_plan(run_dir))
        self.widths = _or_none(lambda: artifacts.read_json(run_dir / WIDTHS))
        self.samples = _or_none(lambda: artifacts.read_json(run_dir / SAMPLES)) or []
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
