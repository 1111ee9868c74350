"""The process that waits for a run on a cluster, or in processes of its own: it needs no GPU itself."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from core.cluster import placed
from core.cluster.executor import Executor
from core.cluster.on_ray import RayCluster
from core.cluster.on_slurm import Slurm
from core.cluster.on_torchrun import Torchrun
from core.cluster.placed import Placed
from core.errors import LaunchError, StopRequested
from core.methods import processes_of
from core.runs.artifacts import EVENTS, JOBS, read_spec
from core.runs.events import Event, EventReader
from core.runs.recorder import Recorder
from core.runs.status import read_status
from core.spec.cluster import ClusterSpec
from core.spec.run import RunSpec

LOOK_S = 0.5


def keep(run_dir: Path, module: str, on_event: Callable[[Event], None] | None = None) -> None:
    """Give a run to its executor and wait until it has ended; this process has taken it over.

    Args:
        module: the worker's, by its dotted name; on_event: called with every event, wherever it works.

    Raises:
        StopRequested: it was stopped. LaunchError: it has failed, or was lost too often.
    """
    say = _Log(run_dir)
    try:
        with reached(read_spec(run_dir), run_dir) as executor:
            run = Placed(executor, run_dir, module, say)
            run.submit(read_status(run_dir), placed.versions())
            _wait(run, EventReader(run_dir / EVENTS), on_event)
    except LaunchError as error:
        failure = {"type": "LaunchError", "message": str(error), "fix": "Resume it once that is mended."}
        with Recorder(run_dir, kept=True) as recorder:
            recorder.end("failed", str(error), failure)
        raise
    status = read_status(run_dir)
    if status.state == "stopped":
        raise StopRequested(f"Stopped. Go on with: python -m core runs resume {run_dir.name}")
    if status.state != "finished":
        raise LaunchError(status.message or f"{run_dir.name} is {status.state}")


def reach(asked: ClusterSpec, device: str, folder: Path) -> Executor:
    """The executor that a run asks for.

    Args:
        device: the run's; cpu asks for no GPU. folder: where an executor may keep files of its own.

    Raises:
        LaunchError: its package is missing, or nobody answers.
    """
    package = {"ray": "ray", "slurm": "submitit"}[asked.executor]
    if importlib.util.find_spec(package) is None:
        raise LaunchError(
            f"--executor {asked.executor} needs {package}, which is not installed; "
            "pip install -r requirements-cluster.txt brings it."
        )
    gpus = 0 if asked.gpus is None and device == "cpu" else asked.gpus
    if asked.executor == "ray":
        return RayCluster(asked.address, asked.cpus, gpus)
    return Slurm(folder, asked.cpus, 1 if gpus is None else gpus, asked.partition, asked.minutes)


@contextmanager
def reached(spec: RunSpec, run_dir: Path) -> Iterator[Executor]:
    """The executor that a run asks for, let go of at the end. Raises LaunchError."""
    executor: Executor
    if spec.cluster.here:
        executor = Torchrun(processes_of(spec))
    else:
        executor = reach(spec.cluster, spec.model.device, run_dir / JOBS)
    try:
        yield executor
    finally:
        executor.close()


def _wait(run: Placed, events: EventReader, on_event: Callable[[Event], None] | None) -> None:
    """Look after a run until it has ended; a first request to stop is handed on, a second one ends it."""
    asked = False
    while True:
        try:
            while not run.over():
                _tell(events, on_event)
                time.sleep(LOOK_S)
            return _tell(events, on_event)
        except (StopRequested, KeyboardInterrupt):
            if asked:
                raise
            asked = True
            run.stop()


def _tell(events: EventReader, on_event: Callable[[Event], None] | None) -> None:
    for event in events.read() if on_event else ():
        on_event(event)  # type: ignore[misc]


class _Log:
    """Adds to a run's log and events what the process that waits for it has to say."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def __call__(self, text: str) -> None:
        with Recorder(self._run_dir, kept=True) as recorder:
            recorder.warn(text)
