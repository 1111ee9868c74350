"""A run in parts side by side: each is a run of its own below the run's folder, on whichever node is free."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from core.cluster import placed
from core.cluster.executor import Executor
from core.cluster.keeper import LOOK_S, reached
from core.cluster.parts import Part, Split
from core.cluster.placed import Placed
from core.cluster.split_evaluate import SplitEvaluate
from core.cluster.split_prune import SplitPrune, splits_off
from core.cluster.split_sweep import SplitSweep
from core.errors import LaunchError, StopRequested
from core.files import there, write_text
from core.runs.artifacts import PARTS, SPEC, read_spec
from core.runs.recorder import Recorder
from core.runs.status import Status, read_status, write_status
from core.spec.run import RunSpec

#: So many parts are at the executor at once.
MOST_AT_ONCE = 64
#: How long parts that were asked to stop are waited for.
STOP_S = 120.0


def splits(spec: RunSpec) -> bool:
    """Whether a run is done in parts side by side: a sweep's points, or benchmarks."""
    several = spec.goal == "evaluate" and len(spec.evaluate.tasks) > 1
    return spec.goal == "sweep" or several or splits_off(spec)


def scatter(run_dir: Path, recorder: Recorder, module: str) -> None:
    """Do what is left of a run, each part on a node of its own.

    Args:
        module: the worker's, by its dotted name.

    Raises:
        StopRequested: parts at work keep what they have. LaunchError: some parts failed on their nodes.
    """
    spec = read_spec(run_dir).settled()
    ways: dict[str, Callable[[Path, RunSpec, Recorder], Split]] = {"sweep": SplitSweep, "prune": SplitPrune}
    split = ways.get(spec.goal, SplitEvaluate)(run_dir, spec, recorder)
    with reached(spec, run_dir) as executor:
        recorder.begin({spec.goal: f"{split.does} side by side on {executor.title}"})
        recorder.stage(spec.goal)
        work = _Scattered(split, executor, module)
        try:
            while not work.step():
                time.sleep(LOOK_S)
        except (StopRequested, KeyboardInterrupt):
            work.stop()
            raise
    if work.failed:
        first = next(iter(work.failed.values()))
        raise LaunchError(
            f"{len(work.failed)} of {split.count} {split.unit} failed, the first because: {first} Resume the "
            "run to try them again; the others are kept."
        )
    split.finish()


class _Scattered:
    """The parts of a run: those that wait for their turn, those at the executor, those that failed."""

    def __init__(self, split: Split, executor: Executor, module: str) -> None:
        self.split, self.recorder = split, split.recorder
        self.executor, self.module = executor, module
        self.failed: dict[Path, str] = {}
        self._versions, self._keeper = placed.versions(), split.recorder.status
        self.left = split.left()
        self.at_work: dict[Path, Placed] = {}

    def step(self) -> bool:
        """Hand out parts, look after those at work, collect what is done; whether nothing is left."""
        while self.left and len(self.at_work) < MOST_AT_ONCE:
            self._hand_out(self.left.pop(0))
        for folder, part in list(self.at_work.items()):
            over = part.over()
            self.split.hand_on(folder)
            if over:
                del self.at_work[folder]
                self._collect(folder)
        self._say_where()
        self.recorder.progress(self.split.done(), self.split.count, self.split.unit)
        return not (self.left or self.at_work)

    def _hand_out(self, part: Part) -> None:
        folder = self.split.run_dir / PARTS / part.name
        if not there(folder / SPEC):
            write_text(folder / SPEC, part.spec.to_json())
            write_status(folder, Status(created=time.time(), executor=self.split.spec.cluster.executor))
        if read_status(folder).state == "finished":
            return self._collect(folder)
        run = Placed(
            self.executor, folder, self.module, lambda text: self.recorder.warn(f"{part.title}: {text}")
        )
        run.ready()
        run.submit(self._keeper, self._versions)
        self.at_work[folder] = run

    def _collect(self, folder: Path) -> None:
        status = read_status(folder)
        if status.state == "finished":
            self.split.collect(folder)
            self.left += self.split.follow(folder)
        elif status.state == "failed":
            self.failed[folder] = status.message

    def _say_where(self) -> None:
        """On which nodes parts are measured now, and on which cards."""
        working = [part.status for part in self.at_work.values() if part.status.node]
        nodes = Counter(status.node for status in working)
        cards = dict.fromkeys(f"{status.gpu} of {status.node}" for status in working if status.gpu)
        if nodes:
            unit = self.split.unit
            self.recorder.works_on(
                ", ".join(cards),
                ", ".join(
                    f"{node} ({count} {unit if count > 1 else unit[:-1]})" for node, count in nodes.items()
                ),
            )

    def stop(self) -> None:
        """Ask all parts to stop, and wait for those at work; what waits is taken back at once."""
        for part in self.at_work.values():
            part.stop()
        end = time.monotonic() + STOP_S
        while self.at_work and time.monotonic() < end:
            for folder, part in list(self.at_work.items()):
                if part.over():
                    del self.at_work[folder]
                    self._collect(folder)
            time.sleep(LOOK_S)
