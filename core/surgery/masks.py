"""Apply a plan reversibly: hooks multiply activations, no weight is touched.

A unit is silenced where it is *read*: the inputs of the modules that consume it are multiplied by
its mask. That equals slicing, since nothing else reads the unit. Masks are tensors, one factor per unit,
so a learned mask keeps its gradient.

A factor between 0 and 1 counts once. Those of residual channels count where channels are *written*, see
`stream`. What reads residual channels, and every norm, is only told which channels are at 0.

Norms that average over the masked channels need care, because slicing changes how many channels
there are. A root-mean-square norm keeps dividing by the old number (surgery scales its weight to
match); a norm that subtracts the mean takes mean and variance over the channels that stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from core.devices.lending import lent
from core.errors import NotPrunableError
from core.graph.places import owner_of, reads_last_dim
from core.graph.records import BLOCKS, Graph, Member
from core.plan.blocks import blocks_gone
from core.plan.records import check_plan, implied
from core.surgery.blocks import mask_block
from core.surgery.factors import Factor, Features, Mask, is_binary, mask_input, mask_weight, opened, read
from core.surgery.norms import is_norm, subtracts_mean
from core.surgery.stream import mask_stream

Removed = Mapping[str, tuple[int, ...]]
#: Parameter, dimension, and how the units are read there: "input", "vector" or "embedding".
Place = tuple[str, int, str]


@dataclass
class MaskHandle:
    """Takes the masks off again."""

    _hooks: list[RemovableHandle] = field(default_factory=list)

    def remove(self) -> None:
        """Remove every hook; the model is as it was."""
        while self._hooks:
            self._hooks.pop().remove()

    def add(self, *hooks: RemovableHandle) -> None:
        """Remember hooks to remove."""
        self._hooks.extend(hooks)


def apply_masks(model: nn.Module, graph: Graph, removed: Removed) -> MaskHandle:
    """Silence the units a plan removes, until `.remove()`.

    Args:
        removed: group id -> units that go.

    Raises:
        NotPrunableError: the plan does not fit the graph, or a parameter cannot be masked.
    """
    check_plan(graph, dict(removed))
    masks = {group.id: torch.zeros(1) for group in blocks_gone(graph, removed)}
    for group_id, units in implied(graph, dict(removed)).items():
        mask = torch.ones(graph.group(group_id).units)
        mask[list(units)] = 0.0
        masks[group_id] = mask
    return apply_soft_masks(model, graph, masks)


@contextmanager
def masked(model: nn.Module, graph: Graph, removed: Removed) -> Iterator[None]:
    """Silence the units a plan removes, for the length of a `with` block; no weight is touched.

    Args:
        removed: group id -> units that go, such as a plan's `removed`.

    Raises:
        NotPrunableError: as in `apply_masks`.
    """
    handle = apply_masks(model, graph, removed)
    try:
        yield
    finally:
        handle.remove()


def apply_soft_masks(model: nn.Module, graph: Graph, masks: Mapping[str, Mask]) -> MaskHandle:
    """Multiply every unit by its factor, until `.remove()`; gradients flow into `masks`.

    Factors of a learned mask are read in every forward; tensors without gradient are read once.

    Args:
        masks: group id -> one factor per unit, (units,), or a function that returns them; where it
            returns None, nothing is multiplied. A key-value unit's factor reaches the query heads that
            share it.

    Raises:
        NotPrunableError: a parameter's owner cannot be masked.
    """
    handle = MaskHandle()
    try:
        blocks = {name: mask for name, mask in masks.items() if graph.group(name).kind in BLOCKS}
        masks = {name: mask for name, mask in masks.items() if name not in blocks}
        for name, mask in blocks.items():
            handle.add(*mask_block(model, graph.group(name), mask))
        silenced = dict(masks)
        for group_id, mask in masks.items():
            if graph.group(group_id).kind == "residual_channel" and not is_binary(mask):
                hooks, silent = mask_stream(model, graph.group(group_id), mask)
                handle.add(*hooks)
                if silent:
                    del silenced[group_id]
                else:
                    silenced[group_id] = opened(mask)
        for place, factors in _by_place(graph, silenced).items():
            handle.add(*_mask_place(model, graph, place, factors))
        for group_id, mask in silenced.items():
            for name in graph.group(group_id).plain_norms:
                handle.add(*_mask_plain_norm(model, name, graph.group(group_id).units, opened(mask)))
    except BaseException:
        handle.remove()
        raise
    return handle


def _by_place(graph: Graph, masks: Mapping[str, Mask]) -> dict[Place, list[Factor]]:
    """The factors that meet at each place where units are read."""
    groups, places = graph.by_id, dict[Place, list[Factor]]()
    for group_id, mask in _with_children(graph, masks).items():
        for member in groups[group_id].members:
            reads = "input" if member.role in ("layer2", "router") else member.role
            if reads in ("input", "vector", "embedding"):
                counts = opened(mask) if reads == "vector" else mask
                places.setdefault((member.parameter, member.dim, reads), []).append((counts, member))
    return places


def _with_children(graph: Graph, masks: Mapping[str, Mask]) -> dict[str, Mask]:
    """Hand a key-value unit's factor down to its query heads, unless it lists what reads them itself."""
    full = dict(masks)
    for group in graph.groups:
        if group.parent is None or group.parent not in masks:
            continue
        if not any(member.role == "layer2" for member in graph.group(group.parent).members):
            full[group.id] = _shared(masks[group.parent], list(group.parent_unit), full.get(group.id))
    return full


def _shared(mask: Mask, parents: list[int], own: Mask | None) -> Mask:
    """The factors of query heads: those of their key-value units, times their own, (query heads,)."""
    if isinstance(mask, Tensor) and not callable(own):
        return mask[parents] if own is None else mask[parents] * own

    def combined() -> Tensor | None:
        shared, ours = read(mask), read(own)
        spread = None if shared is None else shared[parents]
        return ours if spread is None else spread if ours is None else spread * ours

    return combined


def _mask_place(model: nn.Module, graph: Graph, place: Place, factors: list[Factor]) -> list[RemovableHandle]:
    name, dim, reads = place
    if reads == "embedding":  # a tied output layer reads the channels that the embedding writes
        owners = [owner_of(model, alias) for alias, first in graph.tied.items() if first == name]
        width = model.get_parameter(name).shape[dim]
        readers = [owner for owner, attribute in owners if reads_last_dim(owner, attribute, dim)]
        return [mask_input(owner, Features(width, factors)) for owner in readers]
    owner, attribute = owner_of(model, name)
    size = model.get_parameter(name).shape[dim]
    if reads == "vector":
        # A norm is masked once, for its weight; its bias and other biases add to channels nobody reads.
        norm = attribute == "weight" and is_norm(owner)
        return _mask_norm(owner, Features(size, factors)) if norm else []
    if reads_last_dim(owner, attribute, dim):
        return [mask_input(owner, Features(size, factors))]
    if isinstance(owner, (nn.Linear, Conv1D)):
        raise NotPrunableError(f"{name} does not read its units along dimension {dim}; it cannot be masked.")
    return mask_weight(owner, attribute, dim, size, factors)


def _mask_plain_norm(model: nn.Module, name: str, units: int, mask: Mask) -> list[RemovableHandle]:
    """A norm without a weight stands in no member; its channels are the units in order."""
    channels = Member(name, 0, "vector", 1, ((0, units, 1),))
    return _mask_norm(model.get_submodule(name), Features(units, [(mask, channels)]))


def _mask_norm(owner: nn.Module, features: Features) -> list[RemovableHandle]:
    """Silence channels before and after a norm; a norm that subtracts the mean counts only what stays."""
    centred = subtracts_mean(owner, features.size)

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0]  # (..., features)
        m = features.like(x)
        if m is None:
            return args
        if not centred:
            return (x * m, *args[1:])
        staying = m.sum().clamp_min(1.0)
        mean = (x * m).sum(dim=-1, keepdim=True) / staying
        # Filling with the mean leaves it in place; the stretch makes the variance over all channels
        # what it is over those that stay. `after` takes the stretch out of the result.
        stretch = (m.numel() / staying).sqrt()
        return (mean + (x - mean) * m * stretch, *args[1:])

    def after(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        m = features.like(out)
        if m is None:
            return out
        if not centred:
            return out * m
        with lent(module):
            shift = module.forward(torch.zeros_like(out[..., :1, :]))  # the bias alone
        stretch = (m.numel() / m.sum().clamp_min(1.0)).sqrt()
        return ((out - shift) / stretch + shift) * m

    return [owner.register_forward_pre_hook(before), owner.register_forward_hook(after)]
