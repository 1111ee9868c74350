"""One measured figure and its goal."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Literal

COMPARE = {"at most": operator.le, "at least": operator.ge}


@dataclass(frozen=True)
class Figure:
    """A ratio of two things measured in the same run, or a size.

    Attributes:
        parts: the two things, in words with units, so that a reader can check the ratio.
    """

    name: str
    value: float
    bound: Literal["at most", "at least"]
    goal: float
    unit: str
    parts: str

    @property
    def met(self) -> bool:
        """Whether the goal is met."""
        return bool(COMPARE[self.bound](self.value, self.goal))

    def row(self) -> str:
        """One line of the table in `docs/measured.md`."""
        verdict = "met" if self.met else f"missed by {abs(self.value / self.goal - 1):.0%}"
        measured, goal = f"{self.value:.2f} {self.unit}", f"{self.bound} {self.goal:g} {self.unit}"
        return f"| {self.name} | {measured} | {goal} | {verdict} | {self.parts} |"
