"""`similarity.safetensors`: how differently the heads of each layer attend."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import NonNegativeInt

from core.files import load_arrays, read_facts, reading, save_arrays
from core.spec.checks import check_tau

SIMILARITY = "similarity.safetensors"


@dataclass(frozen=True)
class _Facts:
    """What the file's metadata says."""

    layers: list[NonNegativeInt]
    tokens: NonNegativeInt
    text: str


@dataclass(frozen=True)
class Similarity:
    """`similarity.safetensors`: how differently two heads attend.

    Attributes:
        divergence: mean Jensen-Shannon distance, (layers, heads, heads), float32, natural logarithm.
        layers: the layer each first index stands for.
        tokens: how many query positions were averaged.
    """

    divergence: NDArray[np.float32]
    layers: list[int]
    tokens: int
    text: str


def write_similarity(run_dir: Path, similarity: Similarity) -> None:
    """Write `similarity.safetensors`. Raises StorageError."""
    facts = {"layers": similarity.layers, "tokens": similarity.tokens, "text": similarity.text}
    save_arrays(run_dir / SIMILARITY, {"divergence": similarity.divergence}, {"facts": json.dumps(facts)})


def read_similarity(run_dir: Path) -> Similarity:
    """Read `similarity.safetensors`. Raises ArtifactError."""
    arrays, metadata = load_arrays(run_dir / SIMILARITY)
    with reading(run_dir / SIMILARITY):
        facts, divergence = read_facts(metadata["facts"], _Facts), arrays["divergence"]
        layers = facts.layers
        if divergence.ndim != 3 or len(layers) != len(divergence):
            raise ValueError(f"{len(layers)} layers, but divergences of shape {divergence.shape}")
        return Similarity(divergence, layers, facts.tokens, facts.text)


def similar_heads(similarity: Similarity, tau: float) -> list[dict[str, Any]]:
    """Which heads of each layer say the same: `layer`, `heads`, `pairs_below_tau` and `candidates` to go."""
    return [
        {
            "layer": layer,
            "heads": len(matrix),
            "pairs_below_tau": pairs_below(matrix, tau),
            "candidates": algorithm_1(matrix, tau),
        }
        for layer, matrix in zip(similarity.layers, map(heads_only, similarity.divergence), strict=True)
    ]


def heads_only(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """The heads a layer has: where layers differ, the matrix is filled up with NaN, (heads, heads)."""
    there = ~np.isnan(np.diagonal(matrix))
    return matrix[there][:, there]


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
