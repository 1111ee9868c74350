"""Ray: a run is a remote task, and ends with the process that waits for it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from importlib import import_module
from typing import Any

from core.cluster import node
from core.cluster.executor import Outcome
from core.errors import LaunchError, short
from core.spec.cluster import BAD_ADDRESS

#: The head answers at once or not at all.
ANSWER_S = 5.0
#: A driver has joined within seconds, also where the machine is busy.
JOIN_S = 60.0


class RayCluster:
    """A cluster of Ray that this process is a driver of.

    Args:
        address: as `--ray-address`; empty for RAY_ADDRESS.
        cpus, gpus: of each task; None for one GPU where the cluster has any.
    """

    def __init__(self, address: str, cpus: int, gpus: int | None) -> None:
        self._ray: Any = import_module("ray")
        address = address or os.environ.get("RAY_ADDRESS", "")
        _require_answer(address)
        self.title = f"Ray at {address}"
        self._join(address)
        self._ray.cloudpickle.register_pickle_by_value(node)  # a node without our folder is to say so
        has = self._ray.cluster_resources().get("GPU", 0)
        self.cpus, self.gpus = cpus, (1 if has else 0) if gpus is None else gpus

    def _join(self, address: str) -> None:
        """Become a driver of the cluster. Raises LaunchError; Ray itself tries for minutes."""
        failed: list[Exception] = []

        def join() -> None:
            try:
                self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except Exception as error:  # whatever Ray meets, of other versions a RuntimeError
                failed.append(error)

        joining = threading.Thread(target=join, name="joins Ray", daemon=True)
        joining.start()
        joining.join(JOIN_S)
        if joining.is_alive() or failed:
            why = short(failed[0]) if failed else f"it has not answered for {JOIN_S:g} s"
            raise LaunchError(
                f"{self.title} cannot be used from here: {why}; from a machine that is no node of the "
                "cluster, give ray://HOST:10001, and use one version of Ray and Python everywhere."
            ) from (failed[0] if failed else None)

    def submit(self, call: dict[str, Any]) -> RayTask:
        """Have a node work; which one, and when, Ray decides."""
        # A process of Ray's does one task: what was loaded for one run is of no use for another.
        remote = self._ray.remote(max_calls=1)(node.work)
        options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": 0}
        return RayTask(self._ray, remote.options(**options).remote(**call))

    def shortage(self) -> str:
        """Why no node can ever take a task, as the cluster is now; empty if one can."""
        nodes = [each["Resources"] for each in self._ray.nodes() if each["Alive"]]
        if any(have.get("CPU", 0) >= self.cpus and have.get("GPU", 0) >= self.gpus for have in nodes):
            return ""
        has = ", ".join(f"{have.get('CPU', 0):g} CPUs and {have.get('GPU', 0):g} GPUs" for have in nodes)
        return f"no node has {self.cpus} CPUs and {self.gpus} GPUs; there are {has or 'none'}"

    def close(self) -> None:
        """Leave the cluster; tasks that are left end."""
        self._ray.shutdown()


class RayTask:
    """A remote task."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def outcome(self) -> Outcome | None:
        """How it ended; None as long as it waits or works."""
        ready, _ = self._ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(self._reference)
        except (errors.TaskCancelledError, errors.OutOfMemoryError, errors.RayTaskError) as error:
            return Outcome("broken", short(error))
        except errors.RayError as error:
            return Outcome("lost", short(error))
        return Outcome("refused", answer["refused"]) if "refused" in answer else Outcome("done")

    def cancel(self) -> None:
        """Take it back; at work it is ended at once."""
        self._ray.cancel(self._reference, force=True)


def _require_answer(address: str) -> None:
    """Raises LaunchError unless somebody listens at this address."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise LaunchError(f"{BAD_ADDRESS}, got {address or 'none, and RAY_ADDRESS is not set'}.")
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise LaunchError(
            f"Nobody answers at the Ray address {address}: {error}; look at `ray status` on the cluster's "
            "head, and give its address with --ray-address or RAY_ADDRESS."
        ) from error
