"""SLURM: a run is a job, submitted with submitit."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from core.cluster import node
from core.cluster.executor import Outcome
from core.errors import LaunchError, short

#: Which of submitit's executors; its `local` one starts processes on this machine.
SUBMITIT = "slurm"
#: Without a limit of time submitit would ask for five minutes.
DAY = 24 * 60
#: What `sacct` says of a job that another may go on with, and in which words.
_LOST = {
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "it was preempted",
    "REVOKED": "it was taken back",
    "TIMEOUT": "it met its time limit (--time)",
    "INTERRUPTED": "its process was ended",
}
_BROKEN = {"OUT_OF_MEMORY": "memory ran out on its node", "CANCELLED": "somebody cancelled it"}


class Slurm:
    """The SLURM cluster that this machine submits to."""

    def __init__(self, folder: Path, cpus: int, gpus: int, partition: str, minutes: int | None) -> None:
        submitit = import_module("submitit")
        import_module("cloudpickle").register_pickle_by_value(node)  # a node without our folder is to say so
        self.title = "SLURM"
        self._folder = folder / "%j"
        try:
            self._executor = submitit.AutoExecutor(self._folder, cluster=SUBMITIT)
        except RuntimeError as error:
            raise LaunchError(
                f"SLURM is not there: {short(error)}; start this on a login node of the cluster, where srun "
                "and sbatch are found on the PATH, or choose --executor local or ray."
            ) from error
        of_slurm = {"slurm_partition": partition} if partition else {}
        self._executor.update_parameters(
            name="pruneviz", cpus_per_task=cpus, gpus_per_node=gpus, nodes=1, tasks_per_node=1,
            timeout_min=minutes or DAY, **of_slurm,
        )  # fmt: skip

    def submit(self, call: dict[str, Any]) -> SlurmTask:
        """Submit a job. Raises LaunchError if SLURM refuses it."""
        tell = Path(call["run_dir"]) / "node.json"
        tell.unlink(missing_ok=True)
        try:
            return SlurmTask(self._executor.submit(node.work_and_tell, str(tell), call), tell)
        except (import_module("submitit").core.utils.FailedJobError, OSError) as error:
            raise LaunchError(f"SLURM refused the job: {short(error)}; change what was asked for.") from error

    def shortage(self) -> str:
        """SLURM itself refuses what no node can ever take."""
        return ""

    def close(self) -> None:
        """Nothing is held."""


class SlurmTask:
    """A job; `tell` is where it leaves its answer."""

    def __init__(self, job: Any, tell: Path) -> None:
        self._job, self._tell = job, tell

    def outcome(self) -> Outcome | None:
        """How it ended; None as long as it waits or works."""
        if self._tell.exists():
            answer = json.loads(self._tell.read_text(encoding="utf-8"))
            return Outcome("refused", answer["refused"]) if "refused" in answer else Outcome("done")
        if not self._job.done():
            return None
        state = str(self._job.state).partition(" ")[0]
        about = f"Job {self._job.job_id} of SLURM ended as {state}"
        if state in _BROKEN:
            return Outcome("broken", f"{about}: {_BROKEN[state]}")
        if state in _LOST:
            return Outcome("lost", f"{about}: {_LOST[state]}")
        return Outcome("broken", f"{about} without a word; see {self._job.paths.stderr}")

    def cancel(self) -> None:
        """Take it back, whether it waits or works."""
        self._job.cancel()
