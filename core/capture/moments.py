"""Running mean and variance of what modules read and make, over the tokens that count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.capture.slices import Key
from core.errors import DataError
from core.graph.hooks import hooked


class Moments:
    """Running mean and variance per feature: without cancellation, in any order of the batches.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances"; with batches of one it is Welford's update.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros(())
        self.squares: Tensor = torch.zeros(())  # sum of squared deviations from the mean

    def add(self, rows: Float[Tensor, "tokens features"]) -> None:
        """Include more tokens, (tokens, features)."""
        fresh = len(rows)
        if not fresh:
            return
        x = rows.float()
        mean = x.mean(dim=0)
        squares = (x - mean).square_().sum(dim=0)  # far quicker than `torch.var_mean` along this dimension
        if not self.count:
            self.count, self.mean, self.squares = fresh, mean, squares
            return
        total = self.count + fresh
        step = mean - self.mean
        self.mean = self.mean + step * (fresh / total)
        self.squares = self.squares + squares + step.square() * (self.count * fresh / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """Sample variance, (features,); zero for one token."""
        return self.squares / max(self.count - 1, 1)

    @property
    def second_moment(self) -> Tensor:
        """Mean of the squares, (features,)."""
        return self.squares / max(self.count, 1) + self.mean.square()

    @property
    def norm(self) -> Tensor:
        """Euclidean norm over all tokens, (features,)."""
        return (self.second_moment * self.count).sqrt()


class Squares:
    """Mean of the squares per feature alone, which costs half as much."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor = torch.zeros(())

    def add(self, rows: Float[Tensor, "tokens features"]) -> None:
        """Include more tokens, (tokens, features)."""
        if len(rows):
            squares = rows.float().square().sum(dim=0)
            self.total = squares if not self.count else self.total + squares
            self.count += len(rows)

    @property
    def second_moment(self) -> Tensor:
        """Mean of the squares, (features,)."""
        return self.total / max(self.count, 1)


class ModuleMoments:
    """Moments of the inputs of modules, and squares of the outputs of others, collected while the model runs.

    Set `counted`, (batch, length), before each batch; it says which positions count.

    Attributes:
        inputs, outputs: (parameter, dim) -> moments, or squares, of the features that run along it.
    """

    def __init__(self, readers: Mapping[Key, nn.Module], makers: Mapping[Key, nn.Module]) -> None:
        self.readers, self.makers = dict(readers), dict(makers)
        self.inputs = {key: Moments() for key in readers}
        self.outputs = {key: Squares() for key in makers}
        self.counted: Tensor = torch.ones(0, dtype=torch.bool)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Collect for the length of a `with` block."""
        hooks = [
            module.register_forward_pre_hook(self._on_input(key, self.inputs[key]))
            for key, module in self.readers.items()
        ]
        hooks += [
            module.register_forward_hook(self._on_output(key, self.outputs[key]))
            for key, module in self.makers.items()
        ]
        with hooked(hooks):
            yield

    def _on_input(self, key: Key, moments: Moments) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            moments.add(self._rows(key, args[0]))

        return hook

    def _on_output(self, key: Key, moments: Squares) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, args: Any, out: Tensor) -> None:
            moments.add(self._rows(key, out))

        return hook

    def _rows(self, key: Key, x: Tensor) -> Tensor:
        """The positions that count, (tokens, features)."""
        rows = x.detach().reshape(-1, x.shape[-1])
        if len(rows) != self.counted.numel():
            raise DataError(
                f"The module of {key[0]} sees {len(rows)} of {self.counted.numel()} positions, so which of "
                "them are padding cannot be told; choose a criterion that needs no activations there."
            )
        return rows if bool(self.counted.all()) else rows[self.counted.flatten()]
