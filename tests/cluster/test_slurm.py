"""The whole way of a run through submitit, whose local executor stands for SLURM."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from core.runs import launch, watch
from core.runs.artifacts import JOBS, LOG
from core.runs.processes import host
from core.spec.cluster import ClusterSpec
from core.spec.run import RunSpec
from tests.runs.waiting import executed, state, until

pytestmark = pytest.mark.usefixtures("small_work")


def job(name: str) -> RunSpec:
    pytest.importorskip("submitit", reason="pip install -r requirements-cluster.txt")
    return RunSpec(goal="evaluate", name=name, cluster=ClusterSpec("slurm", gpus=0, minutes=10))


def test_a_job_works_is_lost_and_goes_on(runs: Path) -> None:
    run_dir = launch.start(runs, job("lost"))
    until(lambda: executed(run_dir) == 1)
    assert watch.refresh(run_dir).node == host()
    number = next(int(path.name) for path in (run_dir / JOBS).iterdir() if path.name.isdecimal())
    job_ = psutil.Process(number)
    for process in [job_, *job_.children(recursive=True)]:
        process.kill()
    until(lambda: executed(run_dir) == 2)
    (run_dir / "go").touch()
    until(lambda: state(run_dir) == "finished")
    assert "its process was ended" in (run_dir / LOG).read_text()


@pytest.mark.slow
def test_a_job_is_stopped_and_resumed(runs: Path) -> None:
    run_dir = launch.start(runs, job("stops"))
    until(lambda: executed(run_dir) == 1)
    launch.stop(run_dir)
    until(lambda: state(run_dir) == "stopped")
    (run_dir / "go").touch()
    until(lambda: not any(child.poll() is None for child in launch._children))
    launch.resume(run_dir)
    until(lambda: state(run_dir) == "finished")
    assert executed(run_dir) == 2
