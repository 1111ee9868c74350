"""The registry of criteria and what each is handed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from core.registry import Registry


@dataclass(frozen=True)
class Part:
    """One member's part of every unit.

    Attributes:
        values: numbers that belong to each unit, (units, elements).
        share: how much of them counts, (units,): 1, or less where query heads share a key-value head.
    """

    values: Tensor
    share: Tensor


@dataclass(frozen=True)
class GroupView:
    """What a criterion may know of one group.

    Attributes:
        weights: the parameters of each unit, member by member.
        statistics: name -> captured numbers of each unit, member by member.
        options: every option of the criterion.
        rng: seeded for this group.
    """

    units: int
    weights: Sequence[Part]
    rng: np.random.Generator
    statistics: dict[str, Sequence[Part]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


Criterion = Callable[[GroupView], Tensor]
CRITERIA: Registry[Criterion] = Registry("criterion")
