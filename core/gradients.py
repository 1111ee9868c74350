"""Gradient products, folded into one number per index as backward goes; each gradient is freed at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from core.graph.records import Graph
from core.slices import Key, Slice, slices

#: Statistics per index of a parameter, by name.
PER_INDEX = ("gradient_sum", "gradient_first", "gradient_second", "gradient_mix")
#: Per unit and structure, since it is no sum over the unit's indices.
COARSE = "gradient_coarse"
#: What is not linear in the gradient needs one backward per sample.
PER_SAMPLE = frozenset({"gradient_first", "gradient_second", "gradient_mix", COARSE})

#: Numbers of a matrix worked on at a time: what stays in a processor's cache, and elsewhere what fits.
_BLOCK, _LARGE = 1 << 17, 1 << 24

#: Dimensions of a parameter that are not summed over: the units', and the experts' before it in a stack.
Kept = tuple[int, ...]


class Gradients:
    """Collects over samples; give each sample's loss to `backward` inside `watch`.

    With w a weight and g_s its gradient of sample s's mean next-token loss, per index of a parameter and
    summed over its other dimensions, as a mean over samples:

        gradient_sum     w g_s
        gradient_first   |w g_s|
        gradient_second  (w g_s)^2
        gradient_mix     |w g_s - (w g_s)^2 / 2|
        gradient_coarse  |a - a^2 / 2| with a = sum of w g_s over all of a unit's slice of the parameter

    Attributes:
        values: statistic -> (parameter, dim) -> (size,), or (experts, size) for a stack of experts.
        structures: group id -> for each of its slices the coarse term of every unit, (units,).
    """

    def __init__(self, graph: Graph, kinds: Sequence[str], needs: set[str]) -> None:
        self.needs = [name for name in PER_INDEX if name in needs]
        self.kept: dict[str, set[Kept]] = {}
        self.values: dict[str, dict[Key, Tensor]] = {name: {} for name in self.needs}
        self.structures: dict[str, list[Tensor]] = {}
        self._coarse: dict[Key, list[tuple[str, int, Slice]]] = {}
        for group in graph.of_kind(*kinds):
            parts = slices(graph, group)
            if COARSE in needs:
                self.structures[group.id] = [torch.zeros(group.units) for _ in parts]
            for number, part in enumerate(parts):
                member = part.member
                kept = (member.dim,) if member.at is None else (0, member.dim)
                self.kept.setdefault(member.parameter, set()).add(kept)
                if COARSE in needs:
                    self._coarse.setdefault(part.key, []).append((group.id, number, part))

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Give gradients to the parameters in scope alone, fold each as it is complete, and free it."""
        wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
        hooks = []
        try:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in self.kept)
                if name in self.kept:
                    hooks.append(parameter.register_post_accumulate_grad_hook(self._folding(name)))
            with torch.enable_grad():
                yield
        finally:
            for hook in hooks:
                hook.remove()
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
        """Add one sample's gradient of a parameter."""
        for kept in sorted(self.kept[name]):
            key = name, kept[-1]
            signed = {"gradient_sum"} if key in self._coarse else set()
            found = _sums(weight, gradient, kept, signed.union(self.needs))
            for need in self.needs:
                known = self.values[need].get(key)
                self.values[need][key] = found[need] if known is None else known.add_(found[need])
            for group, number, part in self._coarse.get(key, ()):
                a = part.of(found["gradient_sum"]).sum(dim=1)  # (units,)
                term = (a - a.square() / 2).abs()
                self.structures[group][number] = self.structures[group][number].to(term.device) + term

    def finish(self, samples: int) -> None:
        """Turn sums over samples into means."""
        for by_key in self.values.values():
            for vector in by_key.values():
                vector /= samples
        for parts in self.structures.values():
            for part in parts:
                part /= samples


def _sums(weight: Tensor, gradient: Tensor, kept: Kept, needs: set[str]) -> dict[str, Tensor]:
    """Terms of w g summed over all dimensions but those kept, (size,) or (experts, size)."""
    # A vector is a matrix of one column, a stack of experts several matrices.
    shape = weight.shape if weight.dim() > 1 else (*weight.shape, 1)
    w, g = (one.reshape(-1, *shape[-2:]) for one in (weight, gradient))
    axis = kept[-1] - (weight.dim() - 2) if weight.dim() > 1 else 0
    total = {need: torch.zeros(len(w), w.shape[1 + axis], device=w.device) for need in needs}
    for number in range(len(w)):
        _add_matrix(w[number], g[number], axis, {need: one[number] for need, one in total.items()})
    whole = len(kept) == 1
    return {need: one.sum(dim=0) if whole else one for need, one in total.items()}


def _add_matrix(w: Tensor, g: Tensor, axis: int, total: dict[str, Tensor]) -> None:
    """Add a matrix's terms along `axis`, some rows at a time: all of it happens in the cache."""
    step = max(1, (_BLOCK if w.device.type == "cpu" else _LARGE) // w.shape[1])
    ones = torch.ones(w.shape[1 - axis], device=w.device)
    for first in range(0, len(w), step):
        rows = slice(first, first + step)
        for need, term in _terms(w[rows].float(), g[rows].float(), set(total)):
            if axis == 0:  # a product with ones is the quickest sum there is
                total[need][rows] = term @ ones
            else:
                total[need].addmv_(term.T, ones[: len(term)])


def _terms(w: Tensor, g: Tensor, needs: set[str]) -> Iterator[tuple[str, Tensor]]:
    """The terms that are asked for, one after the other in the same memory."""
    product = w * g
    if "gradient_sum" in needs:
        yield "gradient_sum", product
    if needs & {"gradient_second", "gradient_mix"}:
        squares = product * product
        if "gradient_second" in needs:
            yield "gradient_second", squares
        if "gradient_mix" in needs:
            yield "gradient_mix", squares.mul_(-0.5).add_(product).abs_()
    if "gradient_first" in needs:
        yield "gradient_first", product.abs_()
