"""What every executor does: give a run's folder to a node, and say how that ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

Ending = Literal["done", "refused", "lost", "broken"]


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        ending: `done` its worker came to an end, which the run's status tells; `refused` the node cannot work
            on it; `lost` the node or its process is gone, and another may go on; `broken` it fails wherever
            it is tried.
        text: why, for people; empty for `done`.
    """

    ending: Ending
    text: str = ""


class Task(Protocol):
    """A run's folder in the hands of an executor."""

    def outcome(self) -> Outcome | None:
        """How it ended; None as long as it waits or works."""

    def cancel(self) -> None:
        """Take it back, whether it waits or works."""


class Executor(Protocol):
    """A cluster that was reached. `title` is what people call it."""

    title: str

    def submit(self, call: dict[str, Any]) -> Task:
        """Have a node do what `call` says, the arguments of `core.cluster.node.work`. Raises LaunchError."""

    def shortage(self) -> str:
        """Why no node can take a task, as the cluster is now; empty if one can."""

    def close(self) -> None:
        """Let go of it; what works there is taken back."""
