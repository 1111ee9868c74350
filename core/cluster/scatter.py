"""A sweep side by side: every point is a run of its own below the sweep's, on whichever node is free."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from core.cluster import placed
from core.cluster.executor import Executor
from core.cluster.keeper import LOOK_S, reached
from core.cluster.placed import Placed
from core.errors import ArtifactError, LaunchError, StopRequested
from core.files import there, write_text
from core.results.perplexity import PERPLEXITY
from core.results.sweep import SWEEP, Point, Sweep, planned, read_sweep, write_sweep
from core.runs import launch
from core.runs.artifacts import CHECKPOINT, GROUPS, PARTS, SPEC, read_spec
from core.runs.recorder import Recorder
from core.runs.status import Status, read_status, write_status
from core.spec.cluster import ClusterSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec

#: So many points are at the executor at once.
MOST_AT_ONCE = 64
#: What every point would find out again about the dense model; the first one that did hands it on.
_OF_DENSE = (PERPLEXITY, GROUPS, f"{CHECKPOINT}/references")
#: How long points that were asked to stop are waited for.
STOP_S = 120.0


def splits(spec: RunSpec) -> bool:
    """Whether a run is done in parts side by side."""
    return spec.goal == "sweep"


def scatter(run_dir: Path, recorder: Recorder, module: str) -> None:
    """Measure the points of a sweep that are not measured yet, each on a node of its own.

    Args:
        module: the worker's, by its dotted name.

    Raises:
        StopRequested: points at work keep what they have. LaunchError: some points failed on their nodes.
    """
    spec = read_spec(run_dir).settled()
    with reached(spec, run_dir) as executor:
        recorder.begin({"sweep": f"Measuring points side by side on {executor.title}"})
        recorder.stage("sweep")
        work = _Scattered(run_dir, spec, recorder, executor, module)
        try:
            while not work.step():
                time.sleep(LOOK_S)
        except (StopRequested, KeyboardInterrupt):
            work.stop()
            raise
    shutil.rmtree(run_dir / CHECKPOINT, ignore_errors=True)
    if work.failed:
        first = next(iter(work.failed.values()))
        raise LaunchError(
            f"{len(work.failed)} of {len(planned(spec))} points failed, the first because: {first} "
            "Resume the sweep to try them again; the others are kept."
        )


class _Scattered:
    """The points of a sweep: those that wait for their turn, those at the executor, those that failed."""

    def __init__(
        self, run_dir: Path, spec: RunSpec, recorder: Recorder, executor: Executor, module: str
    ) -> None:
        self.run_dir, self.spec, self.recorder = run_dir, spec, recorder
        self.executor, self.module = executor, module
        self.points = planned(spec)
        self.failed: dict[Path, str] = {}
        self._versions, self._keeper = placed.versions(), recorder.status
        done = self._record.done if self._record else {}
        self.left = [(number, point) for number, point in enumerate(self.points) if point.key not in done]
        self.at_work: dict[Path, Placed] = {}

    @property
    def _record(self) -> Sweep | None:
        with suppress(ArtifactError):
            return read_sweep(self.run_dir)
        return None

    def step(self) -> bool:
        """Hand out points, look after those at work, collect what is done; whether nothing is left."""
        while self.left and len(self.at_work) < MOST_AT_ONCE:
            self._hand_out(*self.left.pop(0))
        for folder, part in list(self.at_work.items()):
            over = part.over()
            self._hand_on(folder)
            if over:
                del self.at_work[folder]
                self._collect(folder)
        self._say_where()
        measured = len(self._record.points) if self._record else 0
        self.recorder.progress(measured, len(self.points), "points")
        return not (self.left or self.at_work)

    def _hand_out(self, number: int, point: Point) -> None:
        folder = self.run_dir / PARTS / f"{number + 1:04d}"
        if not there(folder / SPEC):
            write_text(folder / SPEC, part_of(self.spec, point).to_json())
            write_status(folder, Status(created=time.time(), executor=self.spec.cluster.executor))
        if read_status(folder).state == "finished":
            return self._collect(folder)
        part = Placed(self.executor, folder, self.module, self._sayer(number))
        part.ready()
        part.submit(self._keeper, self._versions)
        self.at_work[folder] = part

    def _say_where(self) -> None:
        """On which nodes points are measured now, and on which cards."""
        working = [part.status for part in self.at_work.values() if part.status.node]
        nodes = Counter(status.node for status in working)
        cards = dict.fromkeys(f"{status.gpu} of {status.node}" for status in working if status.gpu)
        if nodes:
            self.recorder.works_on(
                ", ".join(cards),
                ", ".join(f"{node} ({count} point{'s' * (count > 1)})" for node, count in nodes.items()),
            )

    def _sayer(self, number: int) -> Callable[[str], None]:
        return lambda text: self.recorder.warn(f"Point {number + 1}: {text}")

    def _hand_on(self, folder: Path) -> None:
        """What a point found out about the dense model, once for all that come after."""
        if self._record or not there(folder / SWEEP):
            return
        with suppress(ArtifactError, OSError):
            first = read_sweep(folder)
            for name in _OF_DENSE:
                _copy(folder / name, self.run_dir / name)
            self._write(replace(first, points=()))
            self.recorder.metric("ppl_before", 0, first.ppl)
            for other in first.others:
                self.recorder.metric(f"ppl_before.{other.text}", 0, other.ppl)
            self.recorder.artifact(SWEEP)

    def _collect(self, folder: Path) -> None:
        """Add a point that is measured to the sweep."""
        status = read_status(folder)
        if status.state != "finished":
            if status.state == "failed":
                self.failed[folder] = status.message
            return
        part = read_sweep(folder)
        record = self._record or replace(part, points=())
        done = record.done | part.done
        in_order = tuple(done[point.key] for point in self.points if point.key in done)
        self._write(replace(record, points=in_order))
        facts, spec = read_spec(folder).extra, read_spec(self.run_dir)
        if not spec.extra.get("versions"):
            launch.rewrite(self.run_dir, replace(spec, extra={**spec.extra, **facts}))

    def _write(self, record: Sweep) -> None:
        write_sweep(self.run_dir, replace(record, planned=len(self.points)))

    def stop(self) -> None:
        """Ask all points to stop, and wait for those at work; what waits is taken back at once."""
        for part in self.at_work.values():
            part.stop()
        end = time.monotonic() + STOP_S
        while self.at_work and time.monotonic() < end:
            for folder, part in list(self.at_work.items()):
                if part.over():
                    del self.at_work[folder]
                    self._collect(folder)
            time.sleep(LOOK_S)


def part_of(spec: RunSpec, point: Point) -> RunSpec:
    """The sweep of a single point."""
    alone = SweepSpec(
        (point.method,), (point.target,), (point.scope,), (point.reconstruct,), (point.seed,),
        (point.samples,),
    )  # fmt: skip
    return replace(spec, name="", sweep=alone, cluster=ClusterSpec(), track=(), extra={})


def seed(run_dir: Path) -> None:
    """Give a part that begins what other parts of its run have found out about the dense model."""
    whole = run_dir.parent.parent
    if run_dir.parent.name != PARTS or there(run_dir / SWEEP) or not there(whole / SWEEP):
        return
    with suppress(ArtifactError, OSError):
        record = read_sweep(whole)
        for name in _OF_DENSE:
            _copy(whole / name, run_dir / name)
        write_sweep(run_dir, replace(record, points=(), planned=1))


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder; one that is there stays. Raises OSError."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
