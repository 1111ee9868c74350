"""Dense and pruned side by side, layer by layer: hidden states, and sums over what modules read and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.divergence import special_positions
from core.graph.records import Graph
from core.layerwise import Layers, watching
from core.least_squares import Fit, Normal, fit
from core.masks import owner_of
from core.plan import cuts, implied

Removed = Mapping[str, tuple[int, ...]]
#: One window of so many chooses the ridge.
_HELD_OUT = 4
#: Without a window to spare.
_RIDGE = 1e-2


@dataclass(frozen=True)
class Reader:
    """A linear layer that reads units of which some go.

    Attributes:
        name: of the module; weight: of its matrix; dim: the dimension along which that reads.
        gone: inputs that go; stay: inputs that stay.
    """

    name: str
    module: Any
    weight: str
    dim: int
    gone: Tensor
    stay: Tensor

    def matrix(self) -> Tensor:
        """Its weights as (inputs, outputs), a view."""
        weight: Tensor = self.module.weight.detach()
        return weight if isinstance(self.module, Conv1D) else weight.T


@dataclass
class Reading:
    """Linear layers that read the same, and what that is in the dense model, batch by batch."""

    makers: list[nn.Module]
    dense: list[Tensor]


@dataclass
class Walk:
    """Dense and pruned hidden states before one layer, batch by batch.

    Attributes:
        pruned: the same list as `dense` as long as nothing has been cut.
    """

    model: PreTrainedModel
    graph: Graph
    layers: Layers
    windows: Tensor
    batch_size: int

    def __post_init__(self) -> None:
        self.dense: list[Tensor] = self.layers.first
        self.pruned: list[Tensor] = self.layers.first
        ids = self.windows.to(self.model.device)
        self.counted = list((~special_positions(self.model, ids)).split(self.batch_size))

    def normal(self, inputs: int, outputs: int) -> Normals:
        """Empty sums for these windows."""
        return Normals(self, inputs, outputs)


class Normals:
    """Sums over the windows that fit, and over those that choose the ridge."""

    def __init__(self, walk: Walk, inputs: int, outputs: int) -> None:
        self.walk, device = walk, walk.model.device
        self.seen, self.held_out = (Normal.empty(inputs, outputs, device) for _ in range(2))

    def add(self, batch: int, a: Tensor, t: Tensor) -> None:
        """One batch, (batch, length, inputs) and (batch, length, outputs)."""
        counted = self.walk.counted[batch]  # (batch, length)
        window = batch * self.walk.batch_size + torch.arange(len(counted), device=counted.device)
        chooses = (window % _HELD_OUT == _HELD_OUT - 1)[:, None]
        for sums, rows in ((self.seen, counted & ~chooses), (self.held_out, counted & chooses)):
            if rows.any():  # some modules see their tokens in one line
                sums.add(a.view(*rows.shape, -1)[rows], t.view(*rows.shape, -1)[rows])

    def part(self, stay: Tensor) -> Normals:
        """The same sums over some of the inputs."""
        found = copy(self)
        found.seen, found.held_out = self.seen.part(stay), self.held_out.part(stay)
        return found

    def shift(self, start: Tensor, *, biased: bool) -> Fit:
        """These weights as they are, with the bias that leaves no mean error if they may have one."""
        whole = self.seen.mirror() + self.held_out.mirror()
        start = start.double()
        bias = whole.bias(start) if biased else None
        error = whole.error(start, bias)
        return Fit(start, bias, 0.0, error, error)

    def fit(self, start: Tensor, *, biased: bool) -> Fit:
        """The best change of these weights, (inputs, outputs)."""
        if not self.held_out.tokens:
            return fit(self.seen, None, start, biased=biased, ridges=(_RIDGE,))
        return fit(self.seen, self.held_out, start, biased=biased)


def readers_of(graph: Graph, model: PreTrainedModel, removed: Removed, layer: int) -> list[Reader]:
    """The linear layers of one decoder layer that lose inputs."""
    inside = of_layer(graph, removed, layer)
    gone = cuts(graph, inside)
    found: dict[str, Reader] = {}
    for group_id in implied(graph, inside):
        group = graph.group(group_id)
        if group.layer != layer or group.kind == "residual_channel":
            continue
        for member in group.members:
            module, attribute = owner_of(model, member.parameter)
            if member.role != "layer2" or not isinstance(module, (nn.Linear, Conv1D)):
                continue
            lost = torch.zeros(graph.parameters[member.parameter].shape[member.dim], dtype=torch.bool)
            lost[torch.from_numpy(gone[member.parameter][member.dim])] = True
            name = member.parameter.removesuffix(f".{attribute}")
            where = [rows.nonzero().flatten().to(model.device) for rows in (lost, ~lost)]
            found[name] = Reader(name, module, member.parameter, member.dim, *where)
    return list(found.values())


def of_layer(graph: Graph, removed: Removed, layer: int) -> dict[str, tuple[int, ...]]:
    """The part of a plan that can be felt inside one layer."""
    return {group: units for group, units in removed.items() if graph.group(group).layer in (layer, None)}


def writers_of(walk: Walk, layer: int) -> list[nn.Module]:
    """The linear layers of one decoder layer that read its units, whether or not some go."""
    names = {
        member.parameter.rpartition(".")[0]
        for group in walk.graph.of_kind("query_head", "kv_group", "ffn_channel")
        for member in group.members
        if group.layer == layer and member.role == "layer2"
    }
    modules = [walk.model.get_submodule(name) for name in sorted(names)]
    return [module for module in modules if isinstance(module, (nn.Linear, Conv1D))]


def dense_pass(
    walk: Walk, layer: int, writers: Sequence[nn.Module], makers: Sequence[nn.Module] = ()
) -> tuple[list[Tensor], dict[nn.Module, list[Tensor]], list[nn.Module], list[Reading]]:
    """Run the dense layer once: what leaves it, what each writer returns, their order, what makers read.

    Writers and makers that do not see every token once are left out.
    """
    after, outs, readings = list[Tensor](), {module: list[Tensor]() for module in writers}, list[Reading]()
    order = list[nn.Module]()
    for batch, hidden in enumerate(walk.dense):
        with watching([*writers, *makers]) as seen:
            after.append(walk.layers.run(layer, batch, hidden))
        order = [module for module, _, _ in seen if module in outs]
        for module, _, out in seen:
            if module in outs:
                outs[module].append(out)
        if not batch:
            readings = _readings([(module, x) for module, x, _ in seen if module in makers])
        firsts = {module: x for module, x, _ in seen}
        for reading in readings:
            reading.dense.append(firsts[reading.makers[0]])
    sizes = [hidden.shape[:2].numel() for hidden in walk.dense]
    once = {m: o for m, o in outs.items() if [out.numel() // out.shape[-1] for out in o] == sizes}
    readings = [one for one in readings if [x.numel() // x.shape[-1] for x in one.dense] == sizes]
    return after, once, [module for module in order if module in once], readings


def _readings(seen: list[tuple[nn.Module, Tensor]]) -> list[Reading]:
    """Makers by what they read, in the order in which they run."""
    shared: dict[int, Reading] = {}
    for module, x in seen:
        shared.setdefault(id(x), Reading([], [])).makers.append(module)
    return list(shared.values())
