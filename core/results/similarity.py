"""`similarity.safetensors`: how differently the heads of each layer attend."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.files import load_arrays, reading, save_arrays
from core.results.heads import algorithm_1, pairs_below

SIMILARITY = "similarity.safetensors"


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
        facts, divergence = json.loads(metadata["facts"]), arrays["divergence"]
        layers = [int(layer) for layer in facts["layers"]]
        if divergence.ndim != 3 or len(layers) != len(divergence):
            raise ValueError(f"{len(layers)} layers, but divergences of shape {divergence.shape}")
        return Similarity(divergence, layers, int(facts["tokens"]), str(facts["text"]))


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
