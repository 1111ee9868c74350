"""Hard-concrete gates: one learned number per unit that says how likely the unit stays.

Source: NutePrune (arXiv:2402.09773), Eq. 10, after Louizos et al. (arXiv:1712.01312). The bracket is
theirs, (logit u + log alpha) / temperature: as NutePrune prints it, log alpha is left out of the division,
and a gate at the lower bound would still be open one time in five.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from core.graph.records import Group

LOW, HIGH = -0.1, 1.1
TEMPERATURE = 2 / 3
#: log alpha stays within plus and minus this: probabilities 0.01 and 0.99.
BOUND = 4.605
#: logit of the point where the stretched sigmoid crosses 0, with the sign that opens the gate: a gate below
#: -1.6 is rather closed than open.
_OPENS = -TEMPERATURE * math.log(-LOW / HIGH)
#: What a snapshot stretches log alpha by, from Wang et al. (arXiv:1910.04732).
_STRETCH = 0.8


class Gates(nn.Module):
    """The gates of several groups in one vector.

    Args:
        groups: the groups whose units are gated.
        start: log alpha of every unit, or group id -> log alpha per unit, (units,).

    Attributes:
        log_alpha: (units of all groups,), float32.
        slices: group id -> where its units stand in that vector.
    """

    def __init__(self, groups: Sequence[Group], start: float | Mapping[str, Tensor]) -> None:
        super().__init__()
        self.slices: dict[str, slice] = {}
        total, parts = 0, []
        for group in groups:
            self.slices[group.id] = slice(total, total + group.units)
            total += group.units
            values = torch.full((group.units,), start) if isinstance(start, float) else start[group.id]
            parts.append(values.float())
        self.log_alpha = nn.Parameter(torch.cat(parts))

    def clamp(self, low: float = -BOUND) -> None:
        """Keep log alpha within its bounds, so that no gate is stuck for good."""
        with torch.no_grad():
            self.log_alpha.clamp_(low, BOUND)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Random factors in [0, 1], (units,), with gradient (Eq. 10). The generator is on the CPU."""
        u = torch.rand(self.log_alpha.shape, generator=generator).clamp(1e-6, 1 - 1e-6)
        return _stretch((u.logit().to(self.log_alpha.device) + self.log_alpha) / TEMPERATURE)

    def median(self, at_least: float = -BOUND) -> Tensor:
        """The factors that half of all samples lie under, (units,): 0 where a gate is rather closed.

        Args:
            at_least: log alpha below it counts as this.
        """
        return _stretch(self.log_alpha.clamp_min(at_least) / TEMPERATURE)

    def stay(self) -> Tensor:
        """Probability that a factor is not 0, (units,), with gradient."""
        return torch.sigmoid(self.log_alpha + _OPENS)

    @torch.no_grad()
    def cut(self) -> Tensor:
        """The factors of a pruned model, (units,), on the CPU: what a snapshot of the gates is.

        In every group as many units are at 0 as are expected to go, to the nearest whole number, those with
        the lowest log alpha. The others are sigmoid(0.8 log alpha / temperature), below 1 where they are not
        sure. Source: Wang et al. (arXiv:1910.04732), whose rule NutePrune's released code takes its teachers
        by; its paper says that teachers are snapshots of the pruned student, and no more.
        """
        log_alpha, stay = self.log_alpha.detach().cpu(), self.stay().detach().cpu().double()
        factors = torch.sigmoid(_STRETCH * log_alpha / TEMPERATURE)
        for part in self.slices.values():
            units = log_alpha[part]
            go = round(len(units) - float(stay[part].sum()))
            factors[part][units.argsort(stable=True)[:go]] = 0.0
        return factors

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """One vector over all units as group id -> (units,), views."""
        return {group: values[part] for group, part in self.slices.items()}


def _stretch(logit: Tensor) -> Tensor:
    return (torch.sigmoid(logit) * (HIGH - LOW) + LOW).clamp(0.0, 1.0)
