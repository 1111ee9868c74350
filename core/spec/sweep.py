"""What a sweep is asked to vary."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import SpecError
from core.spec.checks import check_sparsity

#: More is a mistake, not a wish: weeks on a CPU.
MOST_POINTS = 2000


@dataclass(frozen=True)
class SweepSpec:
    """The values on every axis of a sweep; every combination is a point.

    Attributes:
        methods: what ranks units; sparsities: fractions of the parameters in scope, in [0, 1).
        scopes, reconstruct: as in `PruneSpec`, which checks them.
        seeds: of every random choice; samples: windows of calibration text.
    """

    methods: tuple[str, ...] = ("taylor_first", "l2", "random")
    sparsities: tuple[float, ...] = (0.1, 0.2, 0.4)
    scopes: tuple[str, ...] = ("local",)
    reconstruct: tuple[str, ...] = ("none",)
    seeds: tuple[int, ...] = (0,)
    samples: tuple[int, ...] = (16,)

    def __post_init__(self) -> None:
        for axis, values in self.__dict__.items():
            if not values:
                raise SpecError(f"{axis} is empty; give at least one value, several separated by commas.")
            if len(set(values)) < len(values):
                raise SpecError(f"{axis} names a value twice: {', '.join(map(str, values))}; give each once.")
        for value in self.sparsities:
            check_sparsity(value)
        _whole("seeds", self.seeds, 0)
        _whole("samples", self.samples, 1)
        if self.points > MOST_POINTS:
            raise SpecError(
                f"This sweep has {self.points:,} points; give fewer values, {MOST_POINTS:,} at most."
            )

    @property
    def points(self) -> int:
        """How many combinations there are."""
        count = 1
        for values in self.__dict__.values():
            count *= len(values)
        return count


def _whole(axis: str, values: tuple[int, ...], least: int) -> None:
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise SpecError(f"{axis} must be whole numbers from {least} up, got {value!r}.")
