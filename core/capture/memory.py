"""What a window's way back needs of its way through, weighed on the model itself."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

#: From so many tokens on, the beginning of a window tells what all of it needs.
_LONG = 64


def window_bytes(model: nn.Module, forward: Callable[[int], Tensor], *, length: int, vocabulary: int) -> int:
    """Bytes that a window's backward needs of its forward, estimated from its beginning.

    That is what the forward saves, and the logits in float32 with their gradient. Of a long window about a
    quarter goes through the model, a prime number of tokens: a saved tensor grows with the window once for
    every dimension that it divides, so twice where every token looks at every other.

    Args:
        forward: runs the model on so many tokens, with gradients wanted; its result is not used.
        length: tokens of the whole window. vocabulary: logits per token.
    """
    short = _prime(length // 4) if length >= _LONG else length
    own = {_place(tensor) for tensor in chain(model.parameters(), model.buffers())}
    alive: list[Tensor] = []  # so that no place in memory is used twice
    sizes: dict[int, float] = {}

    def weigh(tensor: Tensor) -> None:
        place = _place(tensor)
        if place not in own:
            alive.append(tensor.detach())
            grows = min(2, sum(size % short == 0 for size in tensor.shape))
            size = tensor.untyped_storage().nbytes() * (length / short) ** grows
            sizes[place] = max(size, sizes.get(place, 0))

    with torch.autograd.graph.saved_tensors_hooks(weigh, _unread):
        forward(short)
    return int(sum(sizes.values())) + 2 * 4 * length * vocabulary


def _prime(limit: int) -> int:
    """The largest prime number up to `limit`, which is at least 2."""
    return next(n for n in range(limit, 1, -1) if all(n % d for d in range(2, int(n**0.5) + 1)))


def _unread(_: None) -> Tensor:
    raise AssertionError("the forward that is weighed has no backward")


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
