"""Distances of attention heads on a card: one kernel for all pairs, compiled when it is first called."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

#: Below any probability that matters; x log x of it is nothing.
TINY = 1e-30
#: Entropies of pairs of heads at a time: 64 MiB in float32.
_ENTROPIES = 1 << 24


def entropies(p: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Minus the entropy of the mean of two heads.

    Args:
        p: (positions, heads, keys), rows sum to one; first, second: of each pair, (pairs,).

    Returns:
        (positions, pairs). A head paired with itself goes through the very same sums, so two equal heads
        are exactly as far apart as one from itself.
    """
    m = (p[:, first] + p[:, second]) * 0.5
    return (m * m.log()).sum(dim=-1)


@cache
def compiled() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """`entropies` in one kernel that holds no (positions, pairs, keys), for every size."""
    return torch.compile(entropies, dynamic=True, fullgraph=True, options={"compile_threads": 1})


class Unable(Exception):
    """There is no compiler for this device, or none that works."""


def distances(probabilities: Tensor, counted: Tensor) -> Tensor:
    """As `kernels.distances`, on a device that torch compiles for: by Triton on CUDA, in C++ on a CPU.

    Raises:
        Unable: it could not be compiled.
    """
    heads, keys = probabilities.shape[1], probabilities.shape[3]
    pairs = torch.triu_indices(heads, heads, device=probabilities.device)
    first, second = pairs
    own = (first == second).nonzero().flatten()  # where in the list a head meets itself
    total = torch.zeros(len(first), device=probabilities.device)
    # Always laid out alike: for another layout it would be compiled anew.
    rows = probabilities.transpose(1, 2).reshape(-1, heads, keys).contiguous()
    weight = counted.reshape(-1)
    with torch.inference_mode():
        for block, at in zip(*(_blocks(each, len(first)) for each in (rows, weight)), strict=True):
            p = block.float()
            p = (p / p.sum(dim=-1, keepdim=True)).clamp_min_(TINY)
            negative = _run(p, first, second)
            alone = negative[:, own]
            js = (alone[:, first] + alone[:, second]) * 0.5 - negative
            total += js.clamp_min_(0).sqrt_().masked_fill_(~at[:, None], 0).sum(dim=0)
    apart = torch.zeros(heads, heads, device=probabilities.device)
    apart[first, second] = total
    return apart.fill_diagonal_(0)


def _blocks(values: Tensor, pairs: int) -> tuple[Tensor, ...]:
    return values.split(max(1, _ENTROPIES // pairs))


def _run(p: Tensor, first: Tensor, second: Tensor) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's compiler, about what it uses itself
            return compiled()(p, first, second)
    except Exception as error:  # of dynamo, inductor, Triton or a C++ compiler, each with classes of its own
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise Unable(f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}") from error
