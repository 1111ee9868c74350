"""Two loops over many numbers: on the CPU each reads them once, elsewhere torch does, or in passes.

On the CPU torch makes a pass over memory for every step of a formula, which here took most of the time.
These loops are compiled by numba when they are first called, and cached beside this file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from core.capture import fused

logger = logging.getLogger(__name__)
F32 = np.float32
#: Sums may be taken in another order, and a product and a sum in one step; nothing else is loosened.
_FAST = {"reassoc", "contract", "nsz"}
_HALF, _ONE, _LN2 = F32(0.5), F32(1), F32(0.6931471805599453)
#: Below any probability that matters; x log x of it is nothing.
_TINY = F32(fused.TINY)
#: The bits of sqrt(1/2), and the polynomial of log(1 + x) for x near 0 (Moshier's Cephes library, logf).
_ROOT_HALF = np.int32(0x3F3504F3)
_C = tuple(
    F32(c)
    for c in (
        7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    )
)  # fmt: skip
#: Keys of a whole step of a loop: the few after the last step would go one by one.
_WIDE = 32
#: Numbers that torch works on at a time.
_LARGE = 1 << 24
#: Pairs of numbers per thread: with fewer, another thread costs more than it saves.
_WORTH_A_THREAD = 1 << 21
_PRODUCTS_WORTH_A_THREAD = 1 << 18
#: Means of two numbers with their logarithms: with fewer, compiling takes longer than it saves.
_WORTH_COMPILING = 1 << 27
#: Why nothing could be compiled, once that was tried.
_unable: list[str] = []
#: In the place of an array that nothing is added to.
_EMPTY = np.empty((0, 0), F32)


def distances(probabilities: Tensor, counted: Tensor) -> Tensor:
    """Sum over counted positions of the Jensen-Shannon distance of every pair of heads.

    Args:
        probabilities: (batch, heads, queries, keys); rows are made to sum to one.
        counted: (batch, queries), bool.

    Returns:
        (heads, heads), above the diagonal, float32.
    """
    if probabilities.device.type != "cpu":
        return _distances_elsewhere(probabilities, counted)
    heads, positions, keys = probabilities.shape[1], counted.numel(), probabilities.shape[3]
    p, seen = probabilities.float().contiguous().numpy(), counted.numpy()

    def part(first: int, last: int) -> Any:
        total = np.zeros((heads, heads))
        _distances(p, seen, first, last, total)
        return total

    total = _shared(part, positions, positions * heads**2 * keys, _WORTH_A_THREAD)
    return torch.from_numpy(total).float()


def _distances_elsewhere(probabilities: Tensor, counted: Tensor) -> Tensor:
    """In one kernel where that is worth compiling it and can be, else in passes; says once that it cannot."""
    batch, heads, queries, keys = probabilities.shape
    work = batch * queries * keys * heads * (heads + 1) // 2
    if probabilities.device.type == "cuda" and work >= _WORTH_COMPILING and not _unable:
        try:
            return fused.distances(probabilities, counted)
        except fused.Unable as error:
            _unable.append(str(error))
            logger.warning("Head distances are computed in passes: no kernel of them compiles (%s)", error)
    return distances_by_torch(probabilities, counted)


def distances_by_torch(probabilities: Tensor, counted: Tensor) -> Tensor:
    """As `distances`, on any device. Keys that a block of queries does not look at are left out."""
    batch, heads, queries, keys = probabilities.shape
    total = torch.zeros(heads, heads, device=probabilities.device)
    step = max(1, _LARGE // (batch * heads * keys))
    for first in range(0, queries, step):
        last = min(first + step, queries)
        block = probabilities[:, :, first:last]
        seen = last if last < keys and not bool(block[..., last:].any()) else keys
        p = block[..., :seen].transpose(0, 1).float().reshape(heads, -1, seen)  # (heads, positions, keys)
        p = (p / p.sum(dim=-1, keepdim=True)).clamp_min_(float(_TINY))
        # In the same order of operations as below, so that the distance of two equal heads is exactly 0.
        negative = p.log().mul_(p).sum(dim=-1).div_(2)  # minus half the entropy, (heads, positions)
        half, weight = p / 2, counted[:, first:last].reshape(-1).float()
        for i in range(heads - 1):
            m = half[i + 1 :] + half[i]  # (heads after i, positions, keys)
            mixed = m.log().mul_(m).sum(dim=-1)  # minus the entropy of the mean
            js = torch.add(negative[i + 1 :], negative[i]).sub_(mixed)
            total[i, i + 1 :] += js.clamp_min_(0).sqrt_() @ weight
    return total


def products(
    w: Tensor, g: Tensor, axis: int, signed: Tensor | None = None, mixed: Tensor | None = None
) -> Tensor:
    """Sums of a = w g, |a|, a^2 and |a - a^2 / 2| over the other axis of a matrix.

    Args:
        w, g: (rows, columns). axis: the one that stays, 0 or 1.
        signed, mixed: (rows, columns), float32 and contiguous; a, and a - a^2 / 2, are added to them.

    Returns:
        (4, size of that axis), float32.
    """
    if w.device.type != "cpu":
        return products_by_torch(w, g, axis, signed, mixed)
    loop: Any = (_by_row, _by_column)[axis]
    rows, size = len(w), w.shape[axis]
    arrays = [array.float().contiguous().numpy() for array in (w, g)]
    arrays += [_EMPTY if kept is None else kept.numpy() for kept in (signed, mixed)]

    def part(first: int, last: int) -> Any:
        out = np.zeros((4, size), F32)
        loop(*arrays, first, last, out)
        return out

    return torch.from_numpy(_shared(part, rows, w.numel(), _PRODUCTS_WORTH_A_THREAD))


def products_by_torch(
    w: Tensor, g: Tensor, axis: int, signed: Tensor | None = None, mixed: Tensor | None = None
) -> Tensor:
    """As `products`, on any device."""
    step = max(1, _LARGE // w.shape[1])
    parts = []
    for first in range(0, len(w), step):
        rows = slice(first, first + step)
        a = w[rows].float() * g[rows].float()
        squares = a.square()
        mix = a - squares / 2
        for keep, term in ((signed, a), (mixed, mix)):
            if keep is not None:
                keep[rows] += term
        parts.append(torch.stack([term.sum(dim=1 - axis) for term in (a, a.abs(), squares, mix.abs())]))
    return torch.cat(parts, dim=1) if axis == 0 else torch.stack(parts).sum(dim=0)


def _shared(part: Callable[[int, int], Any], size: int, work: int, worth: int) -> Any:
    """The sum of `part`(first, last) over pieces of range(size), a thread each where the work is worth it."""
    threads = max(1, min(torch.get_num_threads(), work // worth))
    bounds = [size * number // threads for number in range(threads + 1)]
    return part(0, size) if threads == 1 else sum(_pool().map(part, bounds[:-1], bounds[1:]))


@numba.njit(inline="always")
def _log(x: Any) -> Any:
    """Natural logarithm of a normal number above 0, to 2e-7; a loop over it is vectorised eight wide."""
    bits = F32(x).view(np.int32)
    exponent = (bits - _ROOT_HALF) >> np.int32(23)
    m = np.int32(bits - (exponent << np.int32(23))).view(np.float32) - _ONE
    high = ((_C[0] * m + _C[1]) * m + _C[2]) * m + _C[3]
    series = ((((high * m + _C[4]) * m + _C[5]) * m + _C[6]) * m + _C[7]) * m + _C[8]
    square = m * m
    return F32(exponent) * _LN2 + (series * m * square - _HALF * square + m)


@numba.njit(fastmath=_FAST, nogil=True, error_model="numpy", cache=True)
def _distances(attention: Any, counted: Any, first: Any, last: Any, total: Any) -> None:
    """Add the positions from first to last, counted over batch and queries."""
    _, heads, queries, keys = attention.shape
    p = np.full((heads, (keys + _WIDE - 1) // _WIDE * _WIDE), _TINY, F32)
    negative = np.empty((heads, heads), F32)  # minus the entropy of the mean of two heads
    for position in range(first, last):
        b, q = position // queries, position % queries
        if not counted[b, q]:
            continue
        seen = 0  # later keys have no probability in any head
        for i in range(heads):
            whole = F32(0)
            for k in range(keys):
                whole += attention[b, i, q, k]
            for k in range(keys):
                p[i, k] = attention[b, i, q, k] / whole
                if p[i, k] < _TINY:  # a NaN stays one, here and below
                    p[i, k] = _TINY
            for k in range(keys - 1, seen - 1, -1):
                if attention[b, i, q, k] != 0:
                    seen = k + 1
                    break
        seen = (seen + _WIDE - 1) // _WIDE * _WIDE
        for i in range(heads):
            for j in range(i, heads):  # i itself too, by the very same loop: then equal heads are at 0
                entropy = F32(0)
                for k in range(seen):
                    m = (p[i, k] + p[j, k]) * _HALF
                    entropy += m * _log(m)
                negative[i, j] = entropy
        for i in range(heads):
            for j in range(i + 1, heads):
                js = (negative[i, i] + negative[j, j]) * _HALF - negative[i, j]
                total[i, j] += np.sqrt(F32(0) if js < 0 else js)


@numba.njit(fastmath=_FAST, nogil=True, error_model="numpy", cache=True)
def _by_row(w: Any, g: Any, kept_a: Any, kept_mix: Any, begin: int, end: int, out: Any) -> None:
    """`products` along the rows from `begin` to `end`, into `out`, (4, rows)."""
    for r in range(begin, end):
        signed = first = second = mix = F32(0)
        for c in range(w.shape[1]):
            a = w[r, c] * g[r, c]
            signed += a
            first += abs(a)
            second += a * a
            mix += abs(a - a * a * _HALF)
        out[0, r], out[1, r], out[2, r], out[3, r] = signed, first, second, mix
        _keep(w[r], g[r], kept_a[r : r + 1], kept_mix[r : r + 1])


@numba.njit(fastmath=_FAST, nogil=True, error_model="numpy", cache=True)
def _by_column(w: Any, g: Any, kept_a: Any, kept_mix: Any, begin: int, end: int, out: Any) -> None:
    """`products` along the columns, of the rows from `begin` to `end`, added to `out`, (4, columns)."""
    for r in range(begin, end):
        for c in range(w.shape[1]):
            a = w[r, c] * g[r, c]
            out[0, c] += a
            out[1, c] += abs(a)
            out[2, c] += a * a
            out[3, c] += abs(a - a * a * _HALF)
        _keep(w[r], g[r], kept_a[r : r + 1], kept_mix[r : r + 1])


@numba.njit(fastmath=_FAST, nogil=True, error_model="numpy", cache=True, inline="always")
def _keep(w: Any, g: Any, kept_a: Any, kept_mix: Any) -> None:
    """Add the terms of one row, which is in the processor's cache by now, to what is kept of it, if it is."""
    for row in range(len(kept_a)):
        for c in range(len(w)):
            kept_a[row, c] += w[c] * g[c]
    for row in range(len(kept_mix)):
        for c in range(len(w)):
            a = w[c] * g[c]
            kept_mix[row, c] += a - a * a * _HALF


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that stay: starting them again takes longer than a layer of a small model."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="distances")
