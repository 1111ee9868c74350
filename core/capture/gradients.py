"""Gradient products, folded into one number per index as backward goes; each gradient is freed at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from math import prod

import torch
from torch import Tensor, nn

from core.capture.kernels import products
from core.capture.slices import Key, Slice, slices
from core.graph.hooks import hooked
from core.graph.records import Graph

#: Statistics per index of a parameter, by name, in the order of `kernels.products`.
PER_INDEX = ("gradient_sum", "gradient_first", "gradient_second", "gradient_mix")
#: Per unit and structure, since it is no sum over the unit's indices.
COARSE = "gradient_coarse"
#: What is not linear in the gradient needs one backward per sample.
PER_SAMPLE = frozenset({"gradient_first", "gradient_second", "gradient_mix", COARSE})
#: Dimensions of a parameter that are not summed over: the units', and the experts' before it in a stack.
Axes = tuple[int, ...]


class Gradients:
    """Collects over samples: give each sample's loss to `backward` inside `watch`, then call `end_sample`.

    With w a weight and g_s its gradient of sample s's mean next-token loss, per index of a parameter and
    summed over its other dimensions, as a mean over samples:

        gradient_sum     w g_s
        gradient_first   |w g_s|
        gradient_second  (w g_s)^2
        gradient_mix     |w g_s - (w g_s)^2 / 2|
        gradient_coarse  |a - a^2 / 2| with a = sum of w g_s over all of a unit's slice of the parameter
    """

    def __init__(self, graph: Graph, kinds: Sequence[str], needs: set[str], device: torch.device) -> None:
        self.needs = needs
        #: Parameter -> its dimensions along which units lie.
        self.dims: dict[str, dict[int, Axes]] = {}
        parts = {group.id: slices(graph, group) for group in graph.of_kind(*kinds)}
        for part in chain.from_iterable(parts.values()):
            member = part.member
            dims = self.dims.setdefault(member.parameter, {})
            if member.at is not None:
                dims[member.dim] = (0, member.dim)
            else:
                dims.setdefault(member.dim, (member.dim,))
        self._shapes: dict[Key, tuple[int, ...]] = {}
        self._at: dict[Key, slice] = {}
        width = 0
        for name, dims in self.dims.items():
            for dim, axes in dims.items():
                shape = tuple(graph.parameters[name].shape[axis] for axis in axes)
                self._shapes[name, dim] = shape
                self._at[name, dim] = slice(width, width := width + prod(shape))
        # One sample's terms of all parameters side by side, and their sum over samples.
        self._sample, self._total = (torch.zeros(len(PER_INDEX), width, device=device) for _ in range(2))
        self._coarse = _Coarse(parts, self._at, self._shapes, device) if COARSE in needs else None

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Give gradients only to the parameters in scope, fold each once it is complete, and free it."""
        wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
        try:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in self.dims)
            hooks = (
                parameter.register_post_accumulate_grad_hook(self._folding(name))
                for name, parameter in model.named_parameters()
                if name in self.dims
            )
            with hooked(hooks), torch.enable_grad():
                yield
        finally:
            for parameter, before in wanted.items():
                parameter.requires_grad_(before)
                parameter.grad = None

    def _folding(self, name: str) -> Callable[[Tensor], None]:
        def fold(parameter: Tensor) -> None:
            assert parameter.grad is not None
            gradient, parameter.grad = parameter.grad, None
            with torch.no_grad():
                self._fold(name, parameter.detach(), gradient)

        return fold

    def _fold(self, name: str, weight: Tensor, gradient: Tensor) -> None:
        """Take in one sample's gradient of a parameter."""
        for dim, axes in self.dims[name].items():
            self._sample[:, self._at[name, dim]] = _sums(weight, gradient, axes)

    def end_sample(self) -> None:
        """Add the sample (or batch) whose backward is over, in one step: the pieces are many and small."""
        self._total += self._sample
        if self._coarse is not None:
            self._coarse.add(self._sample[0])
        self._sample.zero_()

    def means(self, samples: int) -> dict[str, dict[Key, Tensor]]:
        """Means over samples: statistic -> (parameter, dim) -> (size,), or (experts, size) for a stack."""
        statistics = dict(zip(PER_INDEX, self._total / samples, strict=True))
        return {
            need: {key: statistics[need][at].view(self._shapes[key]) for key, at in self._at.items()}
            for need in PER_INDEX
            if need in self.needs
        }

    def structures(self, samples: int) -> dict[str, list[Tensor]]:
        """Means over samples of the coarse terms: group id -> for each of its slices (units,)."""
        return {} if self._coarse is None else self._coarse.means(samples)


class _Coarse:
    """The coarse terms of every slice of every group, (units,) each, side by side."""

    def __init__(
        self,
        parts: Mapping[str, Sequence[Slice]],
        at: Mapping[Key, slice],
        shapes: Mapping[Key, tuple[int, ...]],
        device: torch.device,
    ) -> None:
        self._units = [(group, len(part.rows)) for group, structures in parts.items() for part in structures]
        places, owner, first = [torch.empty(0, dtype=torch.long)], [torch.empty(0, dtype=torch.long)], 0
        for part in chain.from_iterable(parts.values()):
            positions = part.places(shapes[part.key]) + at[part.key].start
            places.append(positions.flatten())
            owner.append(torch.arange(first, first + len(positions)).repeat_interleave(positions.shape[1]))
            first += len(positions)
        self._read, self._owner = (torch.cat(indices).to(device) for indices in (places, owner))
        self._total = torch.zeros(first, device=device)

    def add(self, signed: Tensor) -> None:
        """One sample's sums of w g, of all parameters side by side."""
        a = torch.zeros_like(self._total).index_add_(0, self._owner, signed[self._read])
        self._total += (a - a.square() / 2).abs()

    def means(self, samples: int) -> dict[str, list[Tensor]]:
        """Group id -> for each slice the mean over samples, (units,)."""
        terms: dict[str, list[Tensor]] = {}
        pieces = (self._total / samples).split([units for _, units in self._units])
        for (group, _), piece in zip(self._units, pieces, strict=True):
            terms.setdefault(group, []).append(piece)
        return terms


def _sums(weight: Tensor, gradient: Tensor, axes: Axes) -> Tensor:
    """Terms of w g summed over all dimensions but `axes`, (4, size) or (4, experts * size)."""
    # A vector is a matrix of one column, a stack of experts several matrices.
    if weight.dim() == 1:
        weight, gradient = weight[:, None], gradient[:, None]
    if weight.dim() == 2:
        return products(weight, gradient, axes[-1])
    w, g = (tensor.reshape(-1, *weight.shape[-2:]) for tensor in (weight, gradient))
    axis = axes[-1] - (weight.dim() - 2)
    sums = [products(*pair, axis) for pair in zip(w, g, strict=True)]
    return torch.stack(sums).sum(dim=0) if len(axes) == 1 else torch.cat(sums, dim=1)
