"""The sparsity target as an augmented Lagrangian: two multipliers that grow as long as it is missed.

Source: NutePrune (arXiv:2402.09773), Eq. 11, after Wang et al. (arXiv:1910.04732). Multipliers follow the
gradient upwards. Two things make them work in runs of any length and on any model, where the published rates
are tuned for one: they are kept in units of the *pull*, how hard the loss itself pulls at the masks per unit
of sparsity; and they are bounded in it. Adam moves a mask as fast for a push of 3 pulls as for one of 300, so
a higher multiplier reaches the target no sooner: it only takes longer to come down once the target is passed.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

#: A target missed by this much is pushed back with all that the bound allows, by the quadratic term alone.
_BAND = 0.02
#: Weight of the past in the running mean of the pull.
_PAST = 0.9


@dataclass
class Lagrangian:
    """pull * (lambda_1 (s - t) + lambda_2 (s - t)^2).

    Attributes:
        rate: of the ascent, per step and unit of missed sparsity.
        bound: the push is at most N times the pull.
        linear, quadratic: lambda_1 and lambda_2, in units of the pull.
        pull: running mean of how hard the loss pulls; 0 before the first step.
    """

    rate: float
    bound: float
    linear: float = 0.0
    quadratic: float = 0.0
    pull: float = 0.0

    def feel(self, loss: Tensor, sparsity: Tensor) -> None:
        """Take note of the gradients of the loss and of the expected sparsity in the masks, (units,)."""
        now = float(loss.abs().sum().double() / sparsity.abs().sum().double().clamp_min(1e-30))
        self.pull = _PAST * self.pull + (1 - _PAST) * now if self.pull else now

    def push(self, sparsity: float, target: float) -> float:
        """The derivative of L_0 in the expected sparsity (Eq. 11), within the bound."""
        slope = self.linear + 2 * self.quadratic * (sparsity - target)
        return self.pull * min(max(slope, -self.bound), self.bound)

    def ascend(self, sparsity: float, target: float) -> None:
        """One step up the gradient of both multipliers, back within their bounds."""
        miss = sparsity - target
        self.linear = min(max(self.linear + self.rate * miss, -self.bound), self.bound)
        self.quadratic = min(self.quadratic + self.rate * miss**2, highest(self.bound))


def highest(bound: float) -> float:
    """Where lambda_2 stops."""
    return bound / (2 * _BAND)


def warm_up(target: float, step: int, steps: int) -> float:
    """The target at a step: linear from 0 to `target` over `steps` steps."""
    return target * min(1.0, (step + 1) / steps) if steps > 0 else target
