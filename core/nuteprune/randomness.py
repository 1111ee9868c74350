"""Everything random in a training follows from the seed and the number of a step or an epoch.

So there is no random state to save: a training that goes on at a step draws what it would have drawn.
"""

from __future__ import annotations

import torch


def generator(seed: int, number: int) -> torch.Generator:
    """A generator of its own for one step, or with a negative number for one epoch."""
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)


def rows_of_step(count: int, batch: int, step: int, seed: int) -> list[int]:
    """Which of `count` windows a step reads: every window once per epoch, in an order of its own."""
    places = range(step * batch, (step + 1) * batch)
    epochs = {place // count for place in places}
    orders = {epoch: torch.randperm(count, generator=generator(seed, -1 - epoch)) for epoch in epochs}
    return [int(orders[place // count][place % count]) for place in places]
