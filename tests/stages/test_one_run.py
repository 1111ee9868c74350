"""Everything in one run: masks are learned, the cut is taught, benchmarked; wherever it was stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import StopRequested
from core.runs import launch, watch
from core.runs.artifacts import STOP, read_plan
from core.runs.events import Event
from core.runs.status import Status, write_status
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec
from core.stages.worker import execute
from tests.evaluate.scoring import NOT_OURS
from tests.stages.test_distill import DISTIL
from tests.stages.test_nuteprune import OPTIONS
from tests.stages.test_recover import done, metrics, words

__all__ = ["words"]
pytestmark = [pytest.mark.slow, *NOT_OURS]
STAGES = [
    "load", "graph", "write", "teach", "baseline", "benchmark dense", "train", "plan", "surgery", "measure",
    "benchmark pruned", "recover", "control", "evaluate", "benchmark recovered", "export",
]  # fmt: skip
#: Where a stop comes in the middle, too. In `teach` that at its beginning does: it waits for a part.
MIDDLE = ("write", "train", "recover", "control")


def test_a_run_of_all_that_there_is_stopped_in_every_stage_gives_the_same(
    tmp_path: Path, spec: RunSpec, words: list[Path], offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = replace(DISTIL, data=str(words[0]), top_k=8, next_token=0.5, control=True, self_written=0.5)
    asked = replace(
        spec,
        calibration=replace(spec.calibration, name=str(words[0]), samples=8),
        prune=PruneSpec("nuteprune", 0.3, options=dict(OPTIONS)),
        recover=taught,
        evaluate=replace(spec.evaluate, text=str(words[1]), also=(), tasks=("bundled_capitals",), limit=4),
    )
    monkeypatch.setenv("PRUNEVIZ_CACHE", str(tmp_path / "cache"))
    whole = done(tmp_path / "whole", asked)
    run_dir, stopped = launch.create(tmp_path, asked, mine=True), list[str]()

    def stop_there(event: Event) -> None:
        place = event.stage if event.type == "stage" else f"amid {event.stage}"
        amid = event.type in ("progress", "metric") and event.stage in MIDDLE
        if place not in stopped and (amid or event.type == "stage"):
            stopped.append(place)
            (run_dir / STOP).touch()

    for _ in range(3 * len(STAGES)):
        try:
            execute(run_dir, stop_there)
            break
        except StopRequested:
            write_status(run_dir, Status(created=1.0))
    assert {f"amid {stage}" for stage in MIDDLE} <= set(stopped)
    stages = watch.refresh(run_dir).stages
    assert stages == STAGES == [place for place in stopped if not place.startswith("amid")]
    assert untimed(run_dir) == untimed(whole) and read_plan(run_dir) == read_plan(whole)
    assert metrics(whole)["tasks_after"]["bundled_capitals"]["n"] == 4
    assert metrics(whole)["ppl_control"] > 0 and metrics(whole)["recover_held_kl_after"] > 0


def untimed(run_dir: Path) -> dict[str, Any]:
    """The metrics without how long scoring took, and whether its result was there already."""
    measured = metrics(run_dir)
    for name in ("tasks_before", "tasks_pruned", "tasks_after"):
        for result in measured[name].values():
            del result["seconds"], result["cached"]
    return measured
