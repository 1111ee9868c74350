"""A worker that gives its run to an executor; the work there is small and waits for the file `go`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from core.cluster import on_slurm
from core.runs import launch
from core.runs.recorder import Recorder
from core.stages import worker

MODULE = "tests.cluster.waiting_worker"


def work(run_dir: Path, recorder: Recorder) -> None:
    """Note the node's process, then wait for `go`."""
    recorder.begin({"load": "Loading", "evaluate": "Measuring"})
    recorder.stage("evaluate")
    with (run_dir / "executed").open("a") as file:
        file.write(f"{_node()} {os.getpid()}\n")
    step = 0
    while not (run_dir / "go").exists():
        step += 1
        recorder.progress(step, 10**6)
        time.sleep(0.05)


def _node() -> str:
    """Ray's name of the node that this process is on; none elsewhere."""
    ray = sys.modules.get("ray")
    return ray.get_runtime_context().get_node_id() if ray and ray.is_initialized() else "none"


def kept(run_dir: Path, waiting: tuple[str, int, float]) -> None:
    """What a node does."""
    worker.kept(run_dir, waiting, work)


if __name__ == "__main__":
    launch.WORKER = (sys.executable, __file__)
    worker.NODE, on_slurm.SUBMITIT = MODULE, "local"
    sys.exit(worker.main(Path(sys.argv[1])))
