"""Gradient products, folded into one number per index as backward goes; each gradient is freed at once.

Only where the gradient over all samples does not come from one backward, something is kept for every weight.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from math import prod

import torch
from torch import Tensor, nn

from core.capture.kernels import products
from core.capture.names import COARSE, OVER_DATA, PER_BACKWARD, PER_INDEX
from core.capture.slices import Key, Slice, slices
from core.graph.hooks import hooked
from core.graph.records import Graph

#: Dimensions of a parameter that are not summed over: the units', and the experts' before it in a stack.
Axes = tuple[int, ...]


class Gradients:
    """Collects over samples: give each sample's loss to `backward` inside `watch`, then call `end_backward`.

    With w a weight, g_s its gradient of sample s's mean next-token loss, and means over the samples, per
    index of a parameter and summed over its other dimensions:

        gradient_sum               mean of w g_s
        gradient_first             |mean of w g_s|
        gradient_mix               |mean of w g_s - (w g_s)^2 / 2|
        gradient_second            mean of (w g_s)^2
        gradient_first_per_sample  mean of |w g_s|
        gradient_mix_per_sample    mean of |w g_s - (w g_s)^2 / 2|
        gradient_coarse            mean of |a - a^2 / 2| with a = sum of w g_s over all of a unit's slice

    The second and third are known only when every sample was seen. If one backward sees all of them, its
    gradient is folded and freed like any other; over several, the term inside is kept for every weight of
    the parameters that are watched, in float32, until `end_sweep`.
    """

    def __init__(self, graph: Graph, kinds: Sequence[str], needs: set[str], device: torch.device) -> None:
        self.needs = needs
        #: Whether one backward sees all samples.
        self.at_once = False
        #: Told as a backward goes which share of the parameters it is done with; may raise to end it.
        self.on_share: Callable[[float], None] = lambda share: None
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
        #: How many numbers each of these parameters has, in the model's order.
        self.sizes = {name: prod(each.shape) for name, each in graph.parameters.items() if name in self.dims}
        self._shapes: dict[Key, tuple[int, ...]] = {}
        self._at: dict[Key, slice] = {}
        width = 0
        for name, dims in self.dims.items():
            for dim, axes in dims.items():
                shape = tuple(graph.parameters[name].shape[axis] for axis in axes)
                self._shapes[name, dim] = shape
                self._at[name, dim] = slice(width, width := width + prod(shape))
        # Terms of all parameters side by side: of one backward, their sum, and those over the data.
        self._backward, self._total, self._over_data = (
            torch.zeros(rows, width, device=device)
            for rows in (len(PER_BACKWARD), len(PER_BACKWARD), len(OVER_DATA))
        )
        self._kept: dict[str, tuple[Tensor | None, ...]] = {}
        self._folded = self._watched = 0
        self._coarse = _Coarse(parts, self._at, self._shapes, device) if COARSE in needs else None

    @contextmanager
    def watch(self, model: nn.Module, names: Collection[str]) -> Iterator[None]:
        """Give gradients only to these parameters, fold each once it is complete, and free it."""
        wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
        try:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in names)
            self._folded, self._watched = 0, len(names)
            hooks = (
                parameter.register_post_accumulate_grad_hook(self._folding(name))
                for name, parameter in model.named_parameters()
                if name in names
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
            self._folded += 1
            self.on_share(self._folded / self._watched)

        return fold

    def _fold(self, name: str, weight: Tensor, gradient: Tensor) -> None:
        """Take in a parameter's gradient of one backward."""
        keeps = self._keeps(name, weight)
        for dim, axes in self.dims[name].items():
            self._backward[:, self._at[name, dim]] = _sums(weight, gradient, axes, keeps)
            keeps = (None,) * len(OVER_DATA)  # once is enough

    def _keeps(self, name: str, weight: Tensor) -> tuple[Tensor | None, ...]:
        """What is kept of a parameter over several backwards, for each of `OVER_DATA`."""
        if self.at_once:
            return (None,) * len(OVER_DATA)
        if name not in self._kept:
            self._kept[name] = tuple(
                torch.zeros(weight.shape, device=weight.device) if statistic in self.needs else None
                for statistic in OVER_DATA
            )
        return self._kept[name]

    def end_backward(self) -> None:
        """Add the sample (or batch) whose backward is over, in one step: the pieces are many and small."""
        self._total += self._backward
        if self._coarse is not None:
            self._coarse.add(self._backward[0])
        self._backward.zero_()
        self._folded = 0

    def end_sweep(self) -> None:
        """All samples were seen: take the absolute values of what was kept, and free it."""
        if self.at_once:
            self._over_data = self._total[[PER_BACKWARD.index(f"{name}_per_sample") for name in OVER_DATA]]
        for name in list(self._kept):
            kept = {row: terms for row, terms in enumerate(self._kept.pop(name)) if terms is not None}
            for dim, axes in self.dims[name].items():
                for row, terms in kept.items():
                    self._over_data[row, self._at[name, dim]] = _sizes(terms, axes)

    def means(self, samples: int) -> dict[str, dict[Key, Tensor]]:
        """Means over samples: statistic -> (parameter, dim) -> (size,), or (experts, size) for a stack."""
        statistics = dict(zip(PER_INDEX, torch.cat([self._total, self._over_data]) / samples, strict=True))
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


def _sums(weight: Tensor, gradient: Tensor, axes: Axes, keeps: Sequence[Tensor | None]) -> Tensor:
    """Terms of w g summed over all dimensions but `axes`, (4, size) or (4, experts * size).

    Args:
        keeps: to these the terms of `OVER_DATA` are added, unsummed.
    """
    # A vector is a matrix of one column, a stack of experts several matrices.
    shape = (-1, *(weight.shape[-2:] if weight.dim() > 1 else (len(weight), 1)))
    w, g = (tensor.reshape(shape) for tensor in (weight, gradient))
    signed, mixed = ([None] * len(w) if keep is None else keep.view(shape) for keep in keeps)
    axis = axes[-1] - max(weight.dim() - 2, 0)
    matrices = zip(w, g, signed, mixed, strict=True)
    sums = [products(w, g, axis, signed, mixed) for w, g, signed, mixed in matrices]
    return torch.stack(sums).sum(dim=0) if len(axes) == 1 else torch.cat(sums, dim=1)


def _sizes(values: Tensor, axes: Axes) -> Tensor:
    """Absolute values, in place, summed over all dimensions but `axes`, (size,) or (experts * size,)."""
    values.abs_()  # and then a sum takes a quarter of the time of `torch.linalg.vector_norm`
    others = [dim for dim in range(values.dim()) if dim not in axes]
    return (values.sum(dim=others) if others else values).flatten()
