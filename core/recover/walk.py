"""Walk a dense and a pruned model layer by layer: hidden states, and sums over what modules read."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.graph.places import owner_of
from core.graph.records import Graph
from core.models.tokens import special_positions
from core.plan.records import cuts, implied
from core.recover.layers import Layers, layers_of, watching
from core.recover.least_squares import Fit, Normal, exact, fit
from core.surgery.masks import Removed

#: Kinds of units that belong to a single decoder layer.
KINDS = ("query_head", "kv_group", "ffn_channel")
#: One window in this many chooses the ridge.
_HELD_OUT = 4
#: The ridge where no window can choose it.
_RIDGE = 1e-2


@dataclass(frozen=True)
class Reader:
    """A linear layer that reads units of which some go.

    Attributes:
        name: the module's; weight: the name of its matrix; dim: the matrix's dimension of inputs.
        gone: numbers of the inputs that go; stay: of those that stay.
    """

    name: str
    module: Any
    weight: str
    dim: int
    gone: Tensor
    stay: Tensor

    def matrix(self) -> Tensor:
        """Its weights where they are multiplied, (inputs, outputs)."""
        return self.resting().to(self.stay.device)

    def resting(self) -> Tensor:
        """A view of its weights where they rest, (inputs, outputs)."""
        weight: Tensor = self.module.weight.detach()
        return weight if isinstance(self.module, Conv1D) else weight.T

    def bias(self) -> Tensor | None:
        """Its bias where it is added, (outputs,), or None."""
        bias: Tensor | None = self.module.bias
        return None if bias is None else bias.detach().to(self.stay.device)


@dataclass
class Reading:
    """Linear layers that read the same input.

    Attributes:
        makers: these layers; writers: how many writers of the layer run before them.
        dense: what they read in the dense model, batch by batch, (batch, length, inputs).
    """

    makers: list[Any]
    writers: int
    dense: list[Tensor]


@dataclass
class Walk:
    """Dense and pruned hidden states before one layer, batch by batch.

    Attributes:
        batches: token ids, (batch, length) each; the first `fitting` of them fit, the others choose the
            ridge, or the units.
        all_score: whether all of them choose units, or only those that do not fit.
        pruned: the same list as `dense` as long as nothing has been cut.
    """

    model: PreTrainedModel
    graph: Graph
    layers: Layers
    batches: list[Tensor]
    fitting: int
    all_score: bool = True

    @classmethod
    def start(cls, model: PreTrainedModel, graph: Graph, windows: Tensor, batch_size: int) -> Walk:
        """Stand before the first layer, with windows of token ids, (windows, length).

        Raises:
            NotPrunableError: the layers cannot be run one by one.
        """
        chooses = torch.arange(len(windows)) % _HELD_OUT == _HELD_OUT - 1
        return cls._over(model, graph, (windows[~chooses], windows[chooses]), batch_size, all_score=True)

    @classmethod
    def told_apart(
        cls, model: PreTrainedModel, graph: Graph, fit: Tensor, score: Tensor, batch_size: int
    ) -> Walk:
        """As `start`, but some windows only fit weights and the others only score units."""
        return cls._over(model, graph, (fit, score), batch_size, all_score=False)

    @classmethod
    def _over(
        cls,
        model: PreTrainedModel,
        graph: Graph,
        windows: tuple[Tensor, Tensor],
        batch_size: int,
        *,
        all_score: bool,
    ) -> Walk:
        fitting, choosing = (
            [batch.to(model.device) for batch in part.split(batch_size) if len(batch)] for part in windows
        )
        batches = fitting + choosing
        return cls(model, graph, layers_of(model, graph, batches), batches, len(fitting), all_score)

    def __post_init__(self) -> None:
        self.dense: list[Tensor] = self.layers.first
        self.pruned: list[Tensor] = self.layers.first
        self.counted = [~special_positions(self.model, ids) for ids in self.batches]

    def scoring(self, batch: int) -> Tensor:
        """Which positions of a batch score units, (batch, length), bool."""
        counted = self.counted[batch]
        return counted if self.all_score or batch >= self.fitting else torch.zeros_like(counted)

    def normal(self, inputs: int, outputs: int) -> Normals:
        """Empty sums for these windows."""
        return Normals(self, inputs, outputs)


class Normals:
    """Sums over the windows that fit, and over the windows that choose the ridge."""

    def __init__(self, walk: Walk, inputs: int, outputs: int) -> None:
        self.walk, device = walk, walk.model.device
        self.seen, self.held_out = (Normal.empty(inputs, outputs, device) for _ in range(2))

    def add(self, batch: int, a: Tensor, t: Tensor) -> None:
        """Add a batch, (batch, length, inputs) and (batch, length, outputs); special tokens do not count."""
        counted = self.walk.counted[batch].flatten()  # some modules get all tokens in one dimension
        sums = self.seen if batch < self.walk.fitting else self.held_out
        a, t = a.reshape(len(counted), -1), t.reshape(len(counted), -1)
        if bool(counted.all()):
            sums.add(a, t)
        elif bool(counted.any()):
            sums.add(a[counted], t[counted])

    def part(self, stay: Tensor) -> Normals:
        """The same sums over some of the inputs."""
        part = copy(self)
        part.seen, part.held_out = self.seen.part(stay), self.held_out.part(stay)
        return part

    def shift(self, start: Tensor, *, biased: bool) -> Fit:
        """Leave the weights as they are; if `biased`, give them the bias that leaves no mean error."""
        whole = self.seen.mirror() + self.held_out.mirror()
        start = start.double()
        bias = whole.bias(start) if biased else None
        error = whole.error(start, bias)
        return Fit(start, bias, 0.0, error, error)

    def exact(self, start: Tensor) -> Fit:
        """Least squares without a ridge, over the windows that fit, (inputs, outputs)."""
        return exact(self.seen, start)

    def fit(self, start: Tensor, *, biased: bool) -> Fit:
        """The best change of these weights, (inputs, outputs)."""
        if not self.held_out.tokens:
            return fit(self.seen, None, start, biased=biased, ridges=(_RIDGE,))
        return fit(self.seen, self.held_out, start, biased=biased)


def readers_of(graph: Graph, model: PreTrainedModel, removed: Removed, layer: int) -> list[Reader]:
    """The linear layers of one decoder layer that lose inputs."""
    inside = of_layer(graph, removed, layer)
    gone = cuts(graph, inside)
    readers: dict[str, Reader] = {}
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
            gone_stay = [inputs.nonzero().flatten().to(model.device) for inputs in (lost, ~lost)]
            readers[name] = Reader(name, module, member.parameter, member.dim, *gone_stay)
    return list(readers.values())


def of_layer(graph: Graph, removed: Removed, layer: int) -> dict[str, tuple[int, ...]]:
    """The part of a plan that affects one layer."""
    return {group: units for group, units in removed.items() if graph.group(group).layer in (layer, None)}


def whole(model: PreTrainedModel, module: Any) -> Reader:
    """A linear layer all of whose inputs stay."""
    name = next(name for name, candidate in model.named_modules() if candidate is module)
    dim = 0 if isinstance(module, Conv1D) else 1
    size = module.weight.shape[dim]
    none = torch.empty(0, dtype=torch.long, device=model.device)
    return Reader(name, module, f"{name}.weight", dim, none, torch.arange(size, device=model.device))


def writers_of(walk: Walk, layer: int) -> list[nn.Module]:
    """The linear layers of one decoder layer that read its units, whether or not any unit goes."""
    return _linear(walk, layer, "layer2")


def makers_of(walk: Walk, layer: int) -> list[nn.Module]:
    """The linear layers of one decoder layer that make its units."""
    return _linear(walk, layer, "layer1")


def makers_for(walk: Walk, layer: int, writer: nn.Module) -> list[nn.Module]:
    """The linear layers that make what a writer reads: level 1 of its depth-2 module."""
    groups = [group.id for group in walk.graph.of_kind(*KINDS) if group.layer == layer]
    own = [group for group in groups if writer in modules_of(walk, group, "layer2")]
    modules = dict.fromkeys(module for group in own for module in modules_of(walk, group, "layer1"))
    return [module for module in modules if isinstance(module, (nn.Linear, Conv1D))]


def _linear(walk: Walk, layer: int, role: str) -> list[nn.Module]:
    groups = [group.id for group in walk.graph.of_kind(*KINDS) if group.layer == layer]
    modules = dict.fromkeys(module for group in groups for module in modules_of(walk, group, role))
    return [module for module in modules if isinstance(module, (nn.Linear, Conv1D))]


def modules_of(walk: Walk, group: str, role: str) -> list[nn.Module]:
    """The modules that hold a group's matrices of one role."""
    members = walk.graph.group(group).members
    names = dict.fromkeys(member.parameter for member in members if member.role == role)
    return [owner_of(walk.model, name)[0] for name in names]


def dense_pass(
    walk: Walk, layer: int, writers: Sequence[nn.Module], makers: Sequence[nn.Module] = ()
) -> tuple[list[Tensor], dict[nn.Module, list[Tensor]], list[nn.Module], list[Reading]]:
    """Run the dense layer once.

    Returns:
        What leaves it, what each writer returns, the writers in order, and what makers read; all batch by
        batch. Writers and makers that do not see every token once are left out.
    """
    after, outs = list[Tensor](), {module: list[Tensor]() for module in writers}
    order, readings = list[nn.Module](), list[Reading]()
    for batch, hidden in enumerate(walk.dense):
        with watching([*writers, *makers]) as seen:
            after.append(walk.layers.run(layer, batch, hidden))
        order = [module for module, _, _ in seen if module in outs]
        for module, _, out in seen:
            if module in outs:
                outs[module].append(out)
        if not batch:
            readings = _readings(seen, makers, writers)
        inputs = {module: x for module, x, _ in seen}
        for reading in readings:
            reading.dense.append(inputs[reading.makers[0]])
    tokens = [hidden.shape[:2].numel() for hidden in walk.dense]
    once = {module: of_module for module, of_module in outs.items() if _rows(of_module) == tokens}
    readings = [reading for reading in readings if _rows(reading.dense) == tokens]
    return after, once, [module for module in order if module in once], readings


def _rows(tensors: Sequence[Tensor]) -> list[int]:
    """How many rows of features each tensor has."""
    return [tensor.numel() // tensor.shape[-1] for tensor in tensors]


def _readings(
    seen: Sequence[tuple[nn.Module, Tensor, Tensor]],
    makers: Sequence[nn.Module],
    writers: Sequence[nn.Module],
) -> list[Reading]:
    """Group makers by what they read, in the order in which they run."""
    shared: dict[int, Reading] = {}
    before = 0
    for module, x, _ in seen:
        if module in makers:
            shared.setdefault(id(x), Reading([], before, [])).makers.append(module)
        before += module in writers
    return list(shared.values())
