"""Where a run works: on this machine, or on a node of a cluster."""

from __future__ import annotations

import re

from core.checked import checked
from core.errors import SpecError
from core.option import option

EXECUTORS = {
    "local": "On this machine",
    "ray": "On a Ray cluster",
    "slurm": "On a SLURM cluster",
}


@checked
class ClusterSpec:
    """Which executor starts the run's worker, and what it asks for. The runs folder is on a shared disk."""

    executor: str = option("local", "Where the run works.", title="Where it works", choices=EXECUTORS)
    address: str = option(
        "",
        "Of Ray: HOST:PORT of its head on a machine that is one of its nodes, ray://HOST:10001 elsewhere.",
        title="Ray address",
        flag="--ray-address",
        default_text="RAY_ADDRESS",
        called="ray-address",
    )
    gpus: int | None = option(
        None,
        "GPUs that a run asks for on a node of the cluster, or each part of a run that is split.",
        title="GPUs on a node",
        default_text="1 if Ray has any, 1 on SLURM; none with --device cpu",
        ge=0,
    )
    cpus: int = option(1, "CPUs that it asks for there.", title="CPUs on a node", ge=1)
    partition: str = option("", "Partition of SLURM.", title="SLURM partition", default_text="SLURM's own")
    minutes: int | None = option(
        None,
        "Time limit of a SLURM job; a run that meets it goes on in another job, a few times.",
        title="Minutes of a SLURM job",
        flag="--time",
        default_text="24 hours",
        ge=1,
        unit="minutes",
    )

    def __post_init__(self) -> None:
        for name, value, executor in (
            ("--ray-address", self.address, "ray"),
            ("--partition", self.partition, "slurm"),
            ("--time", self.minutes, "slurm"),
        ):
            if value and self.executor != executor:
                raise SpecError(
                    f"{name} belongs to --executor {executor}, got it with {self.executor}; leave one out."
                )
        if self.address and not re.fullmatch(r"(ray://)?[^\s/:]+:\d{1,5}", self.address):
            raise SpecError(f"{BAD_ADDRESS}, got {self.address!r}.")

    @property
    def here(self) -> bool:
        """Whether the run works on the machine that starts it."""
        return self.executor == "local"


BAD_ADDRESS = (
    "ray-address must be HOST:PORT of the cluster's head, such as 10.0.0.1:6379, or ray://HOST:10001 from a "
    "machine that is no node of it"
)
