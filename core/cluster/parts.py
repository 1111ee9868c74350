"""What can be done in parts: which there are, and how their results come together."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.runs.recorder import Recorder
from core.spec.run import RunSpec


@dataclass(frozen=True)
class Part:
    """One part: the name of its folder, what people read of it, and what it is asked."""

    name: str
    title: str
    spec: RunSpec


class Split(Protocol):
    """A run in parts.

    `unit` names several of them, `count` is how many there are in all, `does` is what all of it is.
    """

    run_dir: Path
    spec: RunSpec
    recorder: Recorder
    unit: str
    does: str
    count: int

    def left(self) -> list[Part]:
        """Those whose result is not in the run yet."""

    def follow(self, folder: Path) -> list[Part]:
        """Those that can begin only now that this one is done."""

    def hand_on(self, folder: Path) -> None:
        """Keep of a part at work what others need not find out again."""

    def collect(self, folder: Path) -> None:
        """Add the result of a part that is done."""

    def done(self) -> int:
        """How many results the run has."""

    def finish(self) -> None:
        """Everything is there."""


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder; one that is there stays. Raises OSError."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
