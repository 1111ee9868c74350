"""A sweep in parts: every point is a sweep of its own, and the first measures the dense model for all."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from core.cluster.parts import Part, copy
from core.errors import ArtifactError
from core.files import there
from core.results.perplexity import PERPLEXITY
from core.results.sweep import SWEEP, Point, Sweep, planned, read_sweep, write_sweep
from core.runs import launch
from core.runs.artifacts import CHECKPOINT, GROUPS, PARTS, read_spec
from core.runs.recorder import Recorder
from core.spec.cluster import ClusterSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec

#: What every point would find out again about the dense model; the first one that did hands it on.
_OF_DENSE = (PERPLEXITY, GROUPS, f"{CHECKPOINT}/references")


class SplitSweep:
    """The points of a sweep."""

    unit, does = "points", "Measuring points"

    def __init__(self, run_dir: Path, spec: RunSpec, recorder: Recorder) -> None:
        self.run_dir, self.spec, self.recorder = run_dir, spec, recorder
        self.points = planned(spec)
        self.count = len(self.points)

    @property
    def _record(self) -> Sweep | None:
        with suppress(ArtifactError):
            return read_sweep(self.run_dir)
        return None

    def left(self) -> list[Part]:
        """The points that are not measured yet."""
        done = self._record.done if self._record else {}
        return [
            Part(f"{number:04d}", f"Point {number}", _alone(self.spec, point))
            for number, point in enumerate(self.points, 1)
            if point.key not in done
        ]

    def hand_on(self, folder: Path) -> None:
        """What a point found out about the dense model, once for all that come after."""
        if self._record or not there(folder / SWEEP):
            return
        with suppress(ArtifactError, OSError):
            first = read_sweep(folder)
            for name in _OF_DENSE:
                copy(folder / name, self.run_dir / name)
            self._write(replace(first, points=()))
            self.recorder.metric("ppl_before", 0, first.ppl)
            for other in first.others:
                self.recorder.metric(f"ppl_before.{other.text}", 0, other.ppl)
            self.recorder.artifact(SWEEP)

    def follow(self, folder: Path) -> list[Part]:
        """No point waits for another."""
        return []

    def collect(self, folder: Path) -> None:
        """Add a point that is measured to the sweep."""
        part = read_sweep(folder)
        record = self._record or replace(part, points=())
        done = record.done | part.done
        self._write(
            replace(record, points=tuple(done[point.key] for point in self.points if point.key in done))
        )
        facts, spec = read_spec(folder).extra, read_spec(self.run_dir)
        if not spec.extra.get("versions"):
            launch.rewrite(self.run_dir, replace(spec, extra={**spec.extra, **facts}))

    def _write(self, record: Sweep) -> None:
        write_sweep(self.run_dir, replace(record, planned=self.count))

    def done(self) -> int:
        """How many points are measured."""
        return len(self._record.points) if self._record else 0

    def finish(self) -> None:
        """What the dense model says is of no use any more."""
        shutil.rmtree(self.run_dir / CHECKPOINT, ignore_errors=True)


def _alone(spec: RunSpec, point: Point) -> RunSpec:
    """The sweep of a single point."""
    sweep = SweepSpec(
        (point.method,), (point.target,), (point.scope,), (point.reconstruct,), (point.seed,),
        (point.samples,), (point.drop,),
    )  # fmt: skip
    return replace(spec, name="", sweep=sweep, cluster=ClusterSpec(), track=(), extra={})


def seed(run_dir: Path) -> None:
    """Give a point that begins what other points of its sweep have found out about the dense model."""
    whole = run_dir.parent.parent
    if run_dir.parent.name != PARTS or there(run_dir / SWEEP) or not there(whole / SWEEP):
        return
    with suppress(ArtifactError, OSError):
        record = read_sweep(whole)
        for name in _OF_DENSE:
            copy(whole / name, run_dir / name)
        write_sweep(run_dir, replace(record, points=(), planned=1))
