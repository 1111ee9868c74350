"""Processes that a launcher started together: torchrun, accelerate launch, whoever sets the same variables.

Only a training is for all of them. So what says that there are several is taken out of this process's
environment when it starts: libraries, and processes that it starts, are alone until a training joins all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from core.errors import LaunchError

#: What torch and accelerate read to find each other.
_MEETING = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: How else the variables of launchers begin, or what they are called.
_OTHERS = ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_", "ROLE_", "TORCHELASTIC_", "ACCELERATE_", "FSDP_")
#: The variables in which launchers give the number of processes: torchrun's and accelerate's, then MPI's.
_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


@dataclass(frozen=True)
class Company:
    """This process among those that were started together.

    Attributes:
        rank: its number of `size`, 0 the first, which does the run; local_rank: of the `local_size` on this
            machine.
        variables: what said so, as torch wants to find it when they meet.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    variables: Mapping[str, str]


#: The company that this process has joined, if any.
_joined: list[Company] = []


def join() -> Company | None:
    """Take what launchers say out of the environment; None where this process was started alone.

    Variables that do not say how to meet are left for `require_alone`.
    """
    if _number("WORLD_SIZE") < 2 or not all(os.environ.get(name) for name in _MEETING):
        return None
    names = [name for name in os.environ if name in _MEETING or name.startswith(_OTHERS)]
    variables = {name: os.environ.pop(name) for name in names}
    rank, size = int(variables["RANK"]), int(variables["WORLD_SIZE"])
    local_rank = int(variables.get("LOCAL_RANK", rank))
    local_size = int(variables.get("LOCAL_WORLD_SIZE", size))
    _joined[:] = [Company(rank, size, local_rank, local_size, variables)]
    return _joined[0]


def leave() -> None:
    """Put what launchers said back into the environment, for whoever goes on in this process."""
    while _joined:
        os.environ.update(_joined.pop().variables)


def company() -> Company | None:
    """The processes that this one has joined; None if it is alone."""
    return _joined[0] if _joined else None


def size() -> int:
    """How many processes train together here."""
    return _joined[0].size if _joined else 1


def require_alone() -> None:
    """Raise LaunchError if several such processes would each do the whole run."""
    for name in _SIZES:
        if _number(name) > 1:
            given = os.environ[name]
            raise LaunchError(
                f"This is one of {given} processes ({name}={given}), and each would do the whole run; start "
                "`python -m core` with torchrun or accelerate launch, which say how processes meet (RANK, "
                f"WORLD_SIZE, MASTER_ADDR, MASTER_PORT), or start it once, with --processes {given}."
            )


def _number(name: str) -> int:
    """The whole number in a variable; -1 if it holds none."""
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else -1
