"""The sparsity target as an augmented Lagrangian: two multipliers that grow as long as it is missed.

Source: NutePrune (arXiv:2402.09773), Eq. 11, after Wang et al. (arXiv:1910.04732). Multipliers follow the
gradient upwards. They are bounded: one that went on growing while the masks were still on their way would
drive the model far past the target before it turned round.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Lagrangian:
    """lambda_1 (s - t) + lambda_2 (s - t)^2.

    Attributes:
        rate: of the ascent, per step.
        bound: |lambda_1| stays within it.
        linear, quadratic: lambda_1 and lambda_2; lambda_2 never falls below where it started.
    """

    rate: float
    bound: float
    linear: float = 0.0
    quadratic: float = 0.0

    def penalty(self, sparsity: Tensor, target: float) -> Tensor:
        """L_0 of Eq. 11 for the expected sparsity, a scalar, with gradient."""
        miss = sparsity - target
        return self.linear * miss + self.quadratic * miss.square()

    def ascend(self, sparsity: float, target: float) -> None:
        """One step up the gradient of both multipliers, back within their bounds."""
        miss = sparsity - target
        self.linear = min(max(self.linear + self.rate * miss, -self.bound), self.bound)
        self.quadratic = min(self.quadratic + self.rate * miss**2, self.bound / _REACH)


#: The quadratic term alone reaches the bound's push when the target is missed by half of this.
_REACH = 0.01


def warm_up(target: float, step: int, steps: int) -> float:
    """The target at a step: linear from 0 to `target` over `steps` steps."""
    return target * min(1.0, (step + 1) / steps) if steps > 0 else target
