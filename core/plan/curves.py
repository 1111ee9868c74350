"""How much worse a model gets as one group loses units, and what each unit costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

#: At which shares of its units a group is measured.
WIDTHS = (0.15, 0.35, 0.6, 0.85)


@dataclass(frozen=True)
class Curve:
    """What a group costs.

    Attributes:
        gone: units gone, rising; loss: in nats per token, whatever it is counted from.
        floor: so many units go in any case; ceiling: no more go while others can, None for all.
    """

    gone: tuple[int, ...]
    loss: tuple[float, ...]
    floor: int = 0
    ceiling: int | None = None

    def near(self, gone: int, reach: int) -> Curve:
        """The curve for a group of which about as many units go as now."""
        return replace(self, floor=max(0, gone - reach), ceiling=gone + reach)


def widths_of(units: int) -> tuple[int, ...]:
    """How many units of a group are gone where it is measured; at least one stays."""
    return tuple(sorted({min(max(1, round(share * units)), units - 1) for share in WIDTHS}))


def marginal(curve: Curve, units: int) -> NDArray[np.float64]:
    """What each further unit costs, never less than the one before it, (units,)."""
    each = np.interp(np.arange(units) + 0.5, *slopes_of(curve, units))
    each[: curve.floor] = -np.inf
    if curve.ceiling is not None:
        each[curve.ceiling :] = np.inf
    return each


def slopes_of(curve: Curve, units: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Units gone, rising, and what one more costs there; between two it lies on the line between.

    Slopes are those of the lower convex hull, since only plans on it can be best at some budget (the
    Lagrangian of the knapsack); between the middles of its pieces they rise evenly.
    """
    gone, loss = _hull(np.array(curve.gone, dtype=np.float64), np.array(curve.loss, dtype=np.float64))
    slopes = np.diff(loss) / np.diff(gone)
    middles = (gone[1:] + gone[:-1]) / 2
    first, last = min(slopes[0], slopes[0] / 2), max(slopes[-1], slopes[-1] * 2)
    return np.array([0.0, *middles, units]), np.array([first, *slopes, last])


def _hull(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lower convex hull of points with rising x."""
    stays: list[int] = []
    for new in range(len(x)):
        while len(stays) > 1 and _above(x, y, stays[-2], stays[-1], new):
            stays.pop()
        stays.append(new)
    return x[stays], y[stays]


def _above(x: NDArray[np.float64], y: NDArray[np.float64], left: int, middle: int, right: int) -> bool:
    """Whether the middle point lies on or above the line between the others."""
    return bool((y[middle] - y[left]) * (x[right] - x[left]) >= (y[right] - y[left]) * (x[middle] - x[left]))
