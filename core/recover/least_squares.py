"""Ridge regression from accumulated normal equations, so that inputs can come batch by batch.

The unknown is a change R of the weights W0: minimise |A (W0 + R) - T|^2 + ridge |R|^2, scaled so that
ridge 1 weighs as much as the mean variance of an input. Without data nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

#: Ridges to choose from, relative to the mean squared input; the smallest guards against round-off only.
RIDGES = (1e-2, 1e-1, 1.0, 10.0)
#: A'A whose smallest direction is below this share of the largest is singular.
_SINGULAR = 1e-12
_NEAREST = "more inputs than the windows tell apart, so the solution nearest to the present weights is taken"
#: How many columns are multiplied at once.
_BLOCK = 384


@dataclass
class Normal:
    """A'A, A'T and sums over tokens, in float64.

    Attributes:
        gram: (inputs, inputs), whole only after `mirror`; cross: (inputs, outputs).
        inputs, targets: sums, (inputs,) and (outputs,).
        energy: summed squared targets.
    """

    gram: Float64[Tensor, "inputs inputs"]
    cross: Float64[Tensor, "inputs outputs"]
    inputs: Float64[Tensor, " inputs"]
    targets: Float64[Tensor, " outputs"]
    energy: float = 0.0
    tokens: int = 0

    @classmethod
    def empty(cls, inputs: int, outputs: int, device: torch.device) -> Normal:
        """Sums over no tokens."""
        gram = torch.zeros(inputs, inputs, dtype=torch.float64, device=device)
        return cls(gram, gram.new_zeros(inputs, outputs), gram.new_zeros(inputs), gram.new_zeros(outputs))

    def add(self, a: Float[Tensor, "tokens inputs"], t: Float[Tensor, "tokens outputs"]) -> None:
        """Add a batch, (tokens, inputs) and (tokens, outputs): sums in float64, products in float32.

        Products are in float64 where the batch is.
        """
        if a.dtype != torch.float64:
            a, t = a.float(), t.float()
        for first in range(0, a.shape[1], _BLOCK):  # symmetric: nothing below the diagonal's blocks
            block = slice(first, first + _BLOCK)
            self.gram[block, first:] += a[:, block].T @ a[:, first:]
        self.cross += a.T @ t
        self.inputs += a.sum(dim=0, dtype=torch.float64)
        self.targets += t.sum(dim=0, dtype=torch.float64)
        self.energy += float(t.double().square().sum())
        self.tokens += len(a)

    def __add__(self, other: Normal) -> Normal:
        """The sums over the tokens of both."""
        pairs = zip(self.__dict__.values(), other.__dict__.values(), strict=True)
        return Normal(*(mine + theirs for mine, theirs in pairs))

    def mirror(self) -> Normal:
        """Fill in the half of A'A that `add` leaves out; call this before reading it."""
        self.gram.copy_(self.gram.triu() + self.gram.triu(1).T)
        return self

    def part(self, stay: Tensor) -> Normal:
        """The sums over the same tokens with some of the inputs."""
        gram = self.mirror().gram[stay][:, stay]
        return replace(self, gram=gram, cross=self.cross[stay], inputs=self.inputs[stay])

    def centred(self) -> tuple[Float64[Tensor, "inputs inputs"], Float64[Tensor, "inputs outputs"]]:
        """Gram and cross products of inputs and targets less their means."""
        mean = self.inputs / max(self.tokens, 1)
        return self.gram - torch.outer(mean, self.inputs), self.cross - torch.outer(mean, self.targets)

    def bias(self, weight: Float64[Tensor, "inputs outputs"]) -> Float64[Tensor, " outputs"]:
        """The bias that leaves no mean error with these weights, (outputs,)."""
        return (self.targets - self.inputs @ weight) / max(self.tokens, 1)

    def error(
        self, weight: Float64[Tensor, "inputs outputs"], bias: Float64[Tensor, " outputs"] | None
    ) -> float:
        """Summed squared error of A weight + bias against the targets."""
        total = self.energy - 2 * (self.cross * weight).sum() + ((self.gram @ weight) * weight).sum()
        if bias is not None:
            total += self.tokens * bias.square().sum()
            total += 2 * bias @ (self.inputs @ weight - self.targets)
        return float(total)


@dataclass(frozen=True)
class Fit:
    """Fitted weights.

    Attributes:
        weight: (inputs, outputs); bias: (outputs,), None for a layer without one.
        ridge: the chosen ridge, relative to the mean squared input.
        before, after: squared error over all tokens, with the weights before and after the fit.
        note: what users should know about the fit, or "".
    """

    weight: Float64[Tensor, "inputs outputs"]
    bias: Float64[Tensor, " outputs"] | None
    ridge: float
    before: float
    after: float
    note: str = ""


def fit(
    seen: Normal,
    held_out: Normal | None,
    start: Float[Tensor, "inputs outputs"],
    *,
    biased: bool,
    ridges: tuple[float, ...] = RIDGES,
) -> Fit:
    """The best change of `start`, (inputs, outputs).

    Args:
        held_out: other tokens, which choose the ridge; the fit then uses all tokens. None takes the first
            ridge.

    Returns:
        A fit that is no worse than `start` on `held_out`; if none is better, `start` itself with a bias.
    """
    start = start.double()
    whole = seen.mirror() + held_out.mirror() if held_out is not None and held_out.tokens else seen.mirror()
    start_bias = whole.bias(start) if biased else None
    before = whole.error(start, start_bias)
    ridge, note = ridges[0], ""
    if held_out is not None and held_out.tokens:
        errors = {0.0: held_out.error(start, seen.bias(start) if biased else None)}
        for candidate in ridges:
            weight, _ = _solve(seen, start, candidate, biased)
            errors[candidate] = held_out.error(weight, seen.bias(weight) if biased else None)
            if errors[candidate] > min(errors.values()) and min(errors, key=errors.__getitem__):
                break  # the error falls, then rises: a larger ridge only comes nearer to no change
        ridge = min(errors, key=errors.__getitem__)
        if ridge == 0.0:
            return Fit(start, start_bias, 0.0, before, before, "no change is better on held-out windows")
    weight, note = _solve(whole, start, ridge, biased)
    bias = whole.bias(weight) if biased else None
    return Fit(weight, bias, ridge, before, whole.error(weight, bias), note)


def exact(seen: Normal, start: Float[Tensor, "inputs outputs"]) -> Fit:
    """Least squares as it stands, (A'A)^-1 A'T; where A'A is singular, the solution nearest to `start`.

    Without a ridge the products have to be in float64.
    """
    start = start.double()
    gram = seen.mirror().gram
    residual = seen.cross - gram @ start
    factor, failed = torch.linalg.cholesky_ex(gram)
    diagonal = factor.diagonal()
    singular = bool(failed) or float(diagonal.min() / diagonal.max()) ** 2 < _SINGULAR
    if singular:
        change, note = torch.linalg.pinv(gram, rtol=_SINGULAR, hermitian=True) @ residual, _NEAREST
    else:
        change, note = torch.cholesky_solve(residual, factor), ""
    return Fit(start + change, None, 0.0, seen.error(start, None), seen.error(start + change, None), note)


def _solve(
    seen: Normal, start: Float64[Tensor, "inputs outputs"], ridge: float, biased: bool
) -> tuple[Float64[Tensor, "inputs outputs"], str]:
    gram, cross = seen.centred() if biased else (seen.gram, seen.cross)
    scale = gram.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    residual = cross - gram @ start
    note = ""
    for _ in range(8):
        loaded = gram.clone()
        loaded.diagonal().add_(ridge * scale)
        factor, failed = torch.linalg.cholesky_ex(loaded)
        if not failed:
            return start + torch.cholesky_solve(residual, factor), note
        ridge = max(10 * ridge, 1e-8)
        note = f"the covariance of its inputs is singular, so the ridge was raised to {ridge:g}"
    return start, "the covariance of its inputs is not finite, so its weights stay"
