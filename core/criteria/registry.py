"""The registry of criteria and what each is handed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import SpecError
from core.graph.records import Kind, Role
from core.registry import Registry
from core.results.scores import AL_AM
from core.spec.recommended import RECOMMENDED

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Part:
    """One structure of every unit: its slice of one parameter.

    Attributes:
        role: `layer1` makes the units, `layer2` and a tied `embedding` read them, see `Member`.
        read: gives the weights, (units, width, elements per index).
        statistics: name -> captured numbers, (units, width); those of a whole structure, (units,).
        share: how much of it counts, (units,): 1, or less where query heads share a key-value head.
        keyed: which indices are channels of queries or keys, (units, width), bool.
    """

    role: Role
    read: Callable[[], Tensor]
    statistics: Mapping[str, Tensor]
    share: Tensor
    keyed: Tensor

    @property
    def weight(self) -> Tensor:
        """The weights, (units, width, elements per index), read at every access."""
        return self.read()


@dataclass(frozen=True)
class GroupView:
    """What a criterion may know of one group.

    Attributes:
        parts: the structures of each unit, in order; shared keys and values last.
        rng: seeded for this group.
        options: the criterion's own options, an object of its settings class.
        divergence: of the query heads of each unit with all heads of the layer: mean distance,
            (heads, heads), and which heads each unit has, (units, heads of a unit).
        layer: the group's layer; None where it spans all.
    """

    units: int
    kind: Kind
    parts: Sequence[Part]
    rng: np.random.Generator
    options: Any = None
    divergence: tuple[Tensor, Tensor] | None = None
    layer: int | None = None

    def having(self, statistic: str) -> list[tuple[Part, Tensor]]:
        """The parts of which a statistic was captured, each with what was captured."""
        return [(part, part.statistics[statistic]) for part in self.parts if statistic in part.statistics]

    def of_role(self, *roles: str) -> list[Part]:
        """The parts with one of these roles."""
        return [part for part in self.parts if part.role in roles]


Criterion = Callable[[GroupView], "Tensor"]
CRITERIA: Registry[Criterion] = Registry("criterion")


def check_scopes(names: Iterable[str], scopes: Iterable[str]) -> None:
    """Raises SpecError if none of these scopes can rank by any of these criteria."""
    names, scopes = tuple(names), tuple(scopes)
    if RECOMMENDED in scopes:  # which is one that can, for every method
        return
    for name in names:
        own = CRITERIA[name].scopes
        if own and not set(own) & set(scopes):
            raise SpecError(f"{name} needs scope {own[0]}, got {', '.join(scopes)}; write --scope {own[0]}.")
    if set(scopes) != {AL_AM} or not names or any(CRITERIA[name].channels for name in names):
        return
    able = ", ".join(entry.name for entry in CRITERIA if entry.channels)
    raise SpecError(
        f"scope {AL_AM} compares the channels of units, which are not scored by {', '.join(names)}; take a "
        f"method that scores them ({able}), or scope standardised, which takes any."
    )


def summed(parts: Iterable[Tensor]) -> Tensor:
    """The sum over the structures of every unit, (units,)."""
    import torch

    return torch.stack(list(parts)).sum(dim=0)


def joined(parts: Iterable[Tensor]) -> Tensor:
    """What each structure says of every unit, side by side, (units, numbers of all structures)."""
    import torch

    return torch.cat(list(parts), dim=1)
