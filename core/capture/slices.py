"""What a unit owns, structure by structure: the indices of each parameter that go with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from core.devices.lending import device_of
from core.graph.records import Graph, Group, Member

#: A parameter and one of its dimensions.
Key = tuple[str, int]


@dataclass(frozen=True)
class Slice:
    """One parameter's part of every unit: a coupled structure W_i in LLM-Pruner's words.

    Attributes:
        rows: the indices along `member.dim` that each unit owns, (units, width).
        share: how much of them counts, (units,): 1, or less where query heads share a key-value head.
        keyed: which of them are channels of queries or keys, (units, width), bool: they are contracted
            inside the attention, so nothing of them reaches its output.
    """

    member: Member
    rows: Int[Tensor, "units width"]
    share: Float[Tensor, " units"]
    keyed: Bool[Tensor, "units width"]

    @property
    def key(self) -> Key:
        """The parameter and the dimension along which the units lie."""
        return self.member.parameter, self.member.dim

    @cached_property
    def _flat(self) -> Tensor:
        return self.rows.flatten()

    def of(self, values: Tensor) -> Tensor:
        """Numbers per index, (size,) or (experts, size), as numbers per unit, (units, width)."""
        if values.dim() == 2:
            values = values[self.member.at] if self.member.at is not None else values.sum(dim=0)
        return values.index_select(0, self._flat.to(values.device)).view(self.rows.shape)

    def places(self, shape: tuple[int, ...]) -> Tensor:
        """Where `of` reads a unit's numbers in a flattened array of this shape, (units, numbers per unit)."""
        positions = torch.arange(prod(shape)).view(-1, shape[-1])  # (1 or experts, size)
        if len(shape) == 2 and self.member.at is not None:
            positions = positions[self.member.at][None]
        return positions[:, self._flat].view(len(positions), *self.rows.shape).movedim(1, 0).flatten(1)

    def weight(self, model: nn.Module) -> Float[Tensor, "units width elements"]:
        """The unit's weights where they are multiplied, (units, width, elements per index), float32."""
        resting, dim = model.get_parameter(self.member.parameter).detach(), self.member.dim
        whole = resting.to(device_of(model, resting))
        if self.member.at is not None:
            whole, dim = whole[self.member.at], dim - 1
        rows = whole.movedim(dim, 0).index_select(0, self._flat.to(whole.device))
        return rows.reshape(*self.rows.shape, -1).float()


def slices(graph: Graph, group: Group) -> list[Slice]:
    """The structures of a group's units; shared keys and values come last, with their share."""
    keyed = _keyed(graph, group.layer)
    structures = [_slice(member, member.index(), torch.ones(group.units), keyed) for member in group.members]
    if group.parent is None:
        return structures
    own = {(member.parameter, member.dim): member.index() for member in group.members}
    parents = np.asarray(group.parent_unit)
    share = torch.from_numpy(1.0 / np.bincount(parents)[parents]).float()
    for member in graph.group(group.parent).members:
        index = member.index()
        rows = ~np.isin(index, own.get((member.parameter, member.dim), ())).any(axis=0)
        if rows.any():  # keys and values; the parent also lists its query heads' own slices
            structures.append(_slice(member, index[:, rows][parents], share, keyed))
    return structures


def _slice(member: Member, index: np.ndarray, share: Tensor, keyed: dict[Key, np.ndarray]) -> Slice:
    inside = np.isin(index, keyed.get((member.parameter, member.dim), ()))
    return Slice(member, torch.from_numpy(np.ascontiguousarray(index)), share, torch.from_numpy(inside))


def _keyed(graph: Graph, layer: int | None) -> dict[Key, np.ndarray]:
    """Of every parameter dimension in a layer, the indices that are channels of queries or keys."""
    indices: dict[Key, list[np.ndarray]] = {}
    for group in graph.of_kind("head_dim_pair"):
        for member in group.members if group.layer == layer else ():
            indices.setdefault((member.parameter, member.dim), []).append(member.index().ravel())
    return {key: np.concatenate(parts) for key, parts in indices.items()}
