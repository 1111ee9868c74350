"""A run as one record: what `runs list` and `runs show` print."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from core.errors import ArtifactError
from core.runs.artifacts import EVENTS, read_metrics, read_spec
from core.runs.command_line import command_line
from core.runs.events import EventReader
from core.runs.watch import log_tail, refresh


def record(run_dir: Path) -> dict[str, Any]:
    """A run as `runs list` shows it; `error` says what is wrong with a damaged one."""
    status = dataclasses.asdict(refresh(run_dir))
    shown: dict[str, Any] = {"id": run_dir.name, "run_dir": str(run_dir), **status}
    try:
        spec = read_spec(run_dir)
    except ArtifactError:
        nothing = dict.fromkeys(("goal", "name", "model", "method", "sparsity", "target"))
        return {**shown, **nothing, "warning": ""}
    cut = spec.goal == "prune"
    return {
        **shown,
        "goal": spec.goal,
        "name": spec.name,
        "model": spec.model.source,
        "method": spec.prune.method if cut else None,
        "sparsity": spec.prune.share if cut else None,
        "target": spec.prune.target or None if cut else None,
        "warning": spec.warning,
    }


def full_record(run_dir: Path) -> dict[str, Any]:
    """A run as `runs show` shows it: the record with its spec, command, metrics and last log lines."""
    reader = EventReader(run_dir / EVENTS)
    events = reader.read()
    shown = {**record(run_dir), "events": len(events), "damaged_events": reader.damaged}
    try:
        spec = read_spec(run_dir)
        shown |= {"spec": dataclasses.asdict(spec), "command": command_line(spec)}
    except ArtifactError:
        shown |= {"spec": None, "command": None}
    try:
        shown["metrics"] = read_metrics(run_dir)
    except ArtifactError:
        shown["metrics"] = None
    return {**shown, "log": log_tail(run_dir)}
