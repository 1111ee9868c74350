"""Find redundant heads from their divergences; for the dashboard and the command line alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from core.spec.checks import check_tau


def algorithm_1(divergence: ArrayLike, tau: float) -> list[int]:
    """The heads that Algorithm 1 proposes to remove: one of each similar pair.

    It goes through rows i and columns j in order: where D[i][j] < tau, i != j, and neither i nor j is a
    candidate yet, i becomes one.

    Args:
        divergence: distance of every pair of heads, (heads, heads).
        tau: pairs below it count as similar, in [0, 1].

    Returns:
        Candidates, in the order in which the algorithm takes them.

    Raises:
        SpecError: tau is outside [0, 1].

    Source: the output-approximation paper, Algorithm 1.
    """
    check_tau(tau)
    candidates: list[int] = []
    for i, j in np.argwhere(np.asarray(divergence) < tau).tolist():  # row by row
        # The paper also skips edges it has seen; by then one end is a candidate, so the result is the same.
        if i != j and i not in candidates and j not in candidates:
            candidates.append(i)
    return candidates


def pairs_below(divergence: ArrayLike, tau: float) -> int:
    """How many pairs of different heads lie below tau; each pair counts once."""
    d = np.asarray(divergence)
    return int(np.count_nonzero(np.triu(d < tau, k=1)))
