"""How far a model that was cut, or read back, is from what it should compute, as in `check.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from core.files import read_record

CHECK = "check.json"


@dataclass(frozen=True)
class Agreement:
    """One place at which two models were compared: where the difference is nearest to what is allowed.

    Attributes:
        where: a decoder layer, or the output layer.
        difference: between two numbers of the output there.
        allowed: how far rounding may take those two apart.
    """

    where: str
    difference: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether the difference is rounding."""
        return self.difference <= self.allowed


@dataclass(frozen=True)
class Check:
    """`check.json`: what was compared in a run, and how close it came.

    Attributes:
        cut: the cut model with the masked one, layer by layer.
        saved: the model read back in a process of its own with the one that was saved, way by way.
    """

    cut: list[Agreement] = field(default_factory=list)
    saved: list[Agreement] = field(default_factory=list)


def read_check(run_dir: Path) -> Check:
    """Read `check.json`. Raises ArtifactError."""
    return read_record(run_dir / CHECK, Check, "run it again")
