"""Algorithm 1 against its listing, word for word."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import SpecError
from core.results.similarity import algorithm_1, pairs_below


def listing(d: np.ndarray, tau: float) -> list[int]:
    """The paper's listing, with its set of edges."""
    candidates: list[int] = []
    edges: set[tuple[int, int]] = set()
    for i in range(len(d)):
        for j in range(len(d)):
            if d[i][j] < tau and (i, j) not in edges and (j, i) not in edges and i != j:
                edges.add((i, j))
                if i not in candidates and j not in candidates:
                    candidates.append(i)
    return candidates


def symmetric(heads: int, seed: int) -> np.ndarray:
    d = np.random.default_rng(seed).random((heads, heads))
    d = (d + d.T) / 2
    np.fill_diagonal(d, 0)
    return d


@pytest.mark.parametrize("heads", [1, 2, 9, 32])
@pytest.mark.parametrize("tau", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_candidates_equal_the_listing(heads: int, tau: float) -> None:
    for seed in range(5):
        d = symmetric(heads, seed)
        assert algorithm_1(d, tau) == listing(d, tau)


def test_a_small_case_by_hand() -> None:
    d = np.array([[0.0, 0.1, 0.9, 0.1], [0.1, 0.0, 0.1, 0.9], [0.9, 0.1, 0.0, 0.9], [0.1, 0.9, 0.9, 0.0]])
    # 0-1 is similar: 0 goes. 1-2 is similar: 1 goes. 0-3: 0 goes already.
    assert algorithm_1(d, 0.2) == [0, 1]
    assert pairs_below(d, 0.2) == 3


def test_two_alike_heads_lose_only_one() -> None:
    assert algorithm_1(np.zeros((2, 2)), 0.2) == [0]
    assert pairs_below(np.zeros((2, 2)), 0.2) == 1
    assert algorithm_1(np.ones((4, 4)), 0.2) == []


def test_tau_is_checked() -> None:
    with pytest.raises(SpecError, match="tau"):
        algorithm_1(np.zeros((2, 2)), 1.5)
