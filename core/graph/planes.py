"""Reading planes of labels: integer tensors of a value's shape, often expanded rather than copied."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from core.graph.labels import Ints, unique_rows


def compact(labels: Tensor, keep: tuple[int, ...] = ()) -> Tensor:
    """Drop the copies an expanded plane holds: size 1 along every expanded dimension not in `keep`."""
    for dim in range(labels.dim()):
        if dim not in keep and labels.stride(dim) == 0 and labels.shape[dim] > 1:
            labels = labels.narrow(dim, 0, 1)
    return labels


def varies(labels: Tensor, dim: int) -> bool:
    """Whether the labels change along this dimension."""
    if labels.shape[dim] <= 1 or labels.stride(dim) == 0:
        return False
    labels = compact(labels)
    return bool((labels != labels.narrow(dim, 0, 1)).any())


def rows_along(labels: Tensor, dims: tuple[int, ...]) -> Ints:
    """The distinct lines of labels along `dims`, (lines, channels)."""
    dims = tuple(dim % labels.dim() for dim in dims)
    labels = compact(labels, keep=dims)
    others = [dim for dim in range(labels.dim()) if dim not in dims]
    length = int(np.prod([labels.shape[dim] for dim in dims]))
    lines = labels.permute(*others, *dims).reshape(-1, length)
    return unique_rows(lines.numpy())[0]
