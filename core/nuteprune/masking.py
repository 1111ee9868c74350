"""The masks under training, by one of four rules, until the units that go are fixed.

`learned` are NutePrune's gates under the Lagrangian. The others are baselines of its tables with the same
budget: the lowest scores go, as many as the target asks for at each step. `magnitude` keeps the scores it
starts with (MaP, arXiv:1608.08710); `movement` learns them, a score falling by the loss's derivative in the
mask, whether the unit is open or not (MvP, arXiv:2005.07683); `lora_gradient` measures them at every step,
the start deciding for the first, and what has gone is the first to go again (LoRAPrune, see the module of
that name).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from core.graph.records import Graph, Group
from core.nuteprune.budget import Budget
from core.nuteprune.finish import final_factors, staying
from core.nuteprune.gates import BOUND, Gates
from core.nuteprune.lagrangian import Lagrangian, highest, warm_up
from core.nuteprune.start import standardised
from core.plan.allocation import allocate
from core.plan.cost import with_costs
from core.plan.records import PruningPlan
from core.recover.loop import generator
from core.spec.nuteprune import Settings

#: Weight of the past in the running mean of a unit's importance.
_PAST = 0.9
#: How many standard deviations below the others units stand that went before: no other is as low.
_GONE = 1000.0


class Masking:
    """Masks of several groups on their way to a target.

    Args:
        allocation: how the plan is made, by the names of the arguments of `core.plan.allocation.allocate`.

    Attributes:
        plan: what goes: fixed once settled, else as it was first or last looked at.
        sparsity: the target at its full height; target: that of this step.
        importance: what `note` was told, as a running mean, (units,); 0 before the first step.

    Raises:
        NotPrunableError: the target is out of reach.
    """

    def __init__(
        self,
        gates: Gates,
        graph: Graph,
        groups: Sequence[Group],
        settings: Settings,
        allocation: Mapping[str, Any],
        seed: int,
    ) -> None:
        self.gates, self.graph, self.groups, self.settings, self.seed = gates, graph, groups, settings, seed
        self.budget = Budget(graph, groups)
        self._allocation = {**allocation, "scope": "raw"}
        self.importance = torch.zeros_like(gates.log_alpha.detach())
        self.plan = self.cut()
        self.sparsity, self.target = self.plan.target, 0.0
        self.settled, self._step = settings.settle_step == 0, 0
        self.lagrangian = Lagrangian(
            settings.lambda_rate / settings.steps,
            settings.lambda_bound,
            quadratic=settings.lambda_start * highest(settings.lambda_bound),
        )

    @property
    def ranked(self) -> bool:
        """Whether scores are ranked, instead of gates learned."""
        return self.settings.rule != "learned"

    def aim(self, step: int) -> None:
        """Begin a step: the target rises to where it should be."""
        self._step, self.target = step, warm_up(self.sparsity, step, self.settings.warmup_steps)
        if not self.ranked or self.settled:
            return
        self.plan = self.cut(share=self.target / self.sparsity if self.sparsity else 1.0)

    def note(self, now: Tensor) -> None:
        """Take note of the importance of every unit in this step, (units,), and rank the units by its mean.

        Of a unit that has gone nothing can be measured: it keeps its mean, below all that stay.
        """
        if self.settled or not now.any():
            return
        stays, mean = self._stays(self.plan), self.importance
        newer = _PAST * mean + (1 - _PAST) * now if mean.any() else now
        mean.copy_(torch.where(stays, newer, mean))
        # Units that went before anything was known must not stretch the scale.
        above = self.gates.split(mean.clamp_min(float(mean[mean > 0].min())).cpu())
        scores = standardised(self.groups, {group: values.numpy() for group, values in above.items()})
        with torch.no_grad():
            for group, values in self.gates.split(self.gates.log_alpha).items():
                values.copy_(torch.from_numpy(scores[group]))
            self.gates.log_alpha.sub_(_GONE * ~stays)

    def cut(self, share: float = 1.0) -> PruningPlan:
        """The plan at a share of the target by what the gates say now: the least likely go, of all groups."""
        scores = self.gates.split(self.gates.log_alpha.detach().cpu())
        arguments = {**self._allocation, "sparsity": self._allocation["sparsity"] * share}
        kinds = self._allocation.get("kind_sparsity") or {}
        arguments["kind_sparsity"] = {kind: own * share for kind, own in kinds.items()}
        return allocate(self.graph, {group: values.numpy() for group, values in scores.items()}, **arguments)

    def settle(self, removed: Mapping[str, tuple[int, ...]] | None = None) -> None:
        """Fix the units that go: those of `removed`, or what the gates say now."""
        plan = self.cut()
        if removed is not None:
            plan = with_costs(self.graph, replace(plan, removed=dict(removed)), list(self.groups))
        self.plan, self.settled = plan, True

    def factors(self) -> Tensor:
        """The student's factors in this step, (units,), with gradient; random while gates are learned."""
        if self.settled:
            return self.final()
        if not self.ranked:
            return self.gates.sample(generator(self.seed, self._step))
        stays = self._stays(self.plan).float()
        if self.settings.rule != "movement":
            return stays
        return stays + self.gates.log_alpha - self.gates.log_alpha.detach()

    def final(self) -> Tensor:
        """Factors of the model as it would be cut now, (units,), with gradient."""
        stays = self._stays(self.plan if self.settled else self.cut())
        return stays.float() if self.ranked else final_factors(self.groups, self.gates, stays)

    def certain(self) -> Tensor:
        """What the masks are like now, (units,): nothing random, soft where gates are."""
        return self._stays(self.plan).float() if self.ranked else self.gates.median().detach()

    def snapshot(self) -> Tensor:
        """The factors of a teacher taken now, (units,): a pruned model, whose gates need not be sure yet."""
        return self._stays(self.plan).float() if self.ranked else self.gates.cut()

    def expected(self) -> Tensor:
        """Expected sparsity (Eq. 3), with gradient; that of the plan where units are ranked or fixed."""
        fixed = self.settled or self.ranked
        return self.budget.sparsity(self._stays(self.plan) if fixed else self.gates.stay())

    def actual(self) -> float:
        """Sparsity if every unit went that rather goes than stays."""
        fixed = self.settled or self.ranked
        return float(
            self.budget.sparsity(self._stays(self.plan) if fixed else self.gates.median().detach() > 0)
        )

    def push(self) -> None:
        """Add the Lagrangian's gradient to that of the masks (Eq. 7), and let the multipliers climb."""
        log_alpha, held = self.gates.log_alpha, self.lagrangian
        if self.settled or self.ranked or log_alpha.grad is None:
            return
        expected = self.expected()
        (slope,) = torch.autograd.grad(expected, log_alpha)
        now = float(expected.detach())
        held.feel(log_alpha.grad, slope)
        log_alpha.grad.add_(slope, alpha=self.settings.sparsity_weight * held.push(now, self.target))
        held.ascend(now, self.target)

    def clamp(self) -> None:
        """After a step: gates within their bounds, survivors of a fixed plan at least half open."""
        if not self.ranked:
            self.gates.clamp(low=0.0 if self.settled else -BOUND)

    def _stays(self, plan: PruningPlan) -> Tensor:
        return staying(self.gates, plan.removed).to(self.gates.log_alpha.device)
