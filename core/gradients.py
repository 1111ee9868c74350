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
                self._fold(name, parameter.detach().float() * gradient.float())

        return fold

    def _fold(self, name: str, product: Tensor) -> None:
        """Add one sample's w g, in the shape of the parameter."""
        mixed = product.addcmul(product, product, value=-0.5) if "gradient_mix" in self.needs else product
        for kept in sorted(self.kept[name]):
            key = name, kept[-1]
            for need in self.needs:
                sums = _reduce(need, mixed if need == "gradient_mix" else product, kept)
                known = self.values[need].get(key)
                self.values[need][key] = sums if known is None else known.add_(sums)
            if key in self._coarse:
                signed = _reduce("gradient_sum", product, kept)
                for group, number, part in self._coarse[key]:
                    a = part.of(signed).sum(dim=1)  # (units,)
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


def _reduce(need: str, product: Tensor, kept: Kept) -> Tensor:
    """Sum over all dimensions but those kept."""
    wide = product.unsqueeze(-1)  # so that there is one to sum over, for vectors too
    others = [d for d in range(wide.dim()) if d not in kept]
    if need == "gradient_sum":
        return wide.sum(dim=others)
    if need == "gradient_second":
        return torch.linalg.vector_norm(wide, 2, dim=others).square_()
    return torch.linalg.vector_norm(wide, 1, dim=others)
