"""The training of masks and LoRA: one step after the other, each known by its number.

Source: NutePrune (arXiv:2402.09773), Eq. 7 and Section 3.2. Beyond the paper: in the last steps the units
that go are fixed (`settle`), so that LoRA learns to do without exactly those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.allocation import allocate
from core.capture import next_token_loss
from core.errors import TrainingError
from core.evaluate.perplexity import perplexity
from core.graph.records import Graph, Group
from core.nuteprune import checkpoint
from core.nuteprune.bank import Bank
from core.nuteprune.budget import Budget
from core.nuteprune.checkpoint import State
from core.nuteprune.finish import final_factors, staying
from core.nuteprune.gates import BOUND, Gates
from core.nuteprune.lagrangian import Lagrangian, highest, warm_up
from core.nuteprune.losses import distillation, layer_loss
from core.nuteprune.options import Settings
from core.nuteprune.precision import accelerator
from core.nuteprune.randomness import generator, rows_of_step
from core.nuteprune.schedule import DENSE, Schedule
from core.nuteprune.twin import Snapshot, Twin, forward
from core.plan import PruningPlan

#: Adam's memory for the masks: short, so that they turn round when the target is passed.
_BETAS = (0.5, 0.99)
#: So many losses in a row that are not finite end the training.
_TOO_MANY = 20


@dataclass(frozen=True)
class Report:
    """What one step was like.

    Attributes:
        target, expected: sparsity asked for at this step, and expected of the gates; actual: that of the
            gates that are rather closed than open.
        linear, quadratic: lambda_1 and lambda_2 of Eq. 11.
        teacher: sparsity of the teacher, 0 the dense model, None if nobody taught.
        loss: what was learned from: the divergence, or the next-token loss without a teacher.
        layer: the layer loss; None where it has no weight.
        finite: False where the step was skipped, because the loss was not finite.
    """

    step: int
    target: float
    expected: float
    actual: float
    linear: float
    quadratic: float
    teacher: float | None
    loss: float
    layer: float | None
    finite: bool


class Trainer:
    """Masks and LoRA under training.

    Args:
        windows: token ids, (windows, length).
        allocation: how the plan is made, by the names of the arguments of `core.allocation.allocate`.
        folder: of the checkpoint and the teachers.
        second: a second model that teaches, for `second_model`.

    Raises:
        NotPrunableError: the target is out of reach.
    """

    def __init__(
        self,
        twin: Twin,
        gates: Gates,
        graph: Graph,
        groups: Sequence[Group],
        windows: Tensor,
        settings: Settings,
        *,
        allocation: Mapping[str, Any],
        seed: int,
        folder: Path,
        second: Any = None,
    ) -> None:
        self.twin, self.gates, self.settings, self.second = twin, gates, settings, second
        self.graph, self.groups, self.windows, self.seed = graph, groups, windows, seed
        self._allocation = {**allocation, "scope": "raw"}
        self.budget = Budget(graph, groups)
        self.plan = self.cut()  # a target that is out of reach is found out now, not at the end
        self.sparsity = self.plan.target
        self.bank, self.folder = Bank(folder), folder
        self.schedule = Schedule(
            self.sparsity, settings.gap, settings.interval, settings.warmup_steps, settings.steps,
            settings.last, settings.stage_1, settings.stage_2,
        )  # fmt: skip
        self.lagrangian = Lagrangian(
            settings.lambda_rate / settings.steps,
            settings.lambda_bound,
            quadratic=settings.lambda_start * highest(settings.lambda_bound),
        )
        self.state = State()
        self._seated = DENSE
        self._second_layers = [second.get_submodule(name) for name in graph.layer_modules] if second else []
        self._accelerator = accelerator(twin.model.device, settings.precision)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [gates.log_alpha], "lr": settings.mask_rate, "betas": _BETAS, "weight_decay": 0.0},
                {"params": list(twin.updates().values()), "lr": settings.lora_rate, "weight_decay": 0.0},
            ]
        )

    @property
    def settled(self) -> bool:
        """Whether the units that go are fixed by now."""
        return self.state.step >= self.settings.settle_step

    def step(self) -> Report:
        """Train on one batch. Raises TrainingError if the loss is not finite many times in a row."""
        state, settings = self.state, self.settings
        target = warm_up(self.sparsity, state.step, settings.warmup_steps)
        expected = float(self.expected().detach())
        snapshot = self._teacher(expected)
        loss, layer = self._gradients(snapshot)
        finite = math.isfinite(loss + layer) and self._finite_gradients()
        if finite:
            self._update(target, expected)
        self.optimizer.zero_grad(set_to_none=True)
        self._count(finite)
        teacher = None if settings.distillation == "none" else snapshot.sparsity if snapshot else 0.0
        held = self.lagrangian
        report = Report(
            state.step, target, expected, self.actual(),
            held.pull * held.linear, held.pull * held.quadratic,
            teacher, loss, layer if settings.layer_weight else None, finite,
        )  # fmt: skip
        state.step += 1
        self._collect()
        if state.step == settings.settle_step:
            self._settle()
        return report

    def cut(self) -> PruningPlan:
        """The plan at the target by what the gates say now: the least likely units go, of all groups."""
        log_alpha = self.gates.split(self.gates.log_alpha.detach().cpu())
        scores = {group: values.numpy() for group, values in log_alpha.items()}
        return allocate(self.graph, scores, **self._allocation)

    def _settle(self) -> None:
        """Fix the units that go: from now on survivors and LoRA alone are trained."""
        self.plan = self.cut()

    def factors(self) -> Tensor:
        """Factors of the model as it would be cut now, (units,)."""
        plan = self.plan if self.settled else self.cut()
        stays = staying(self.gates, plan.removed).to(self.gates.log_alpha.device)
        return final_factors(self.groups, self.gates, stays)

    def perplexity(self, held: Tensor) -> float:
        """Perplexity of the model as it would be cut now, on windows kept apart, (windows, length)."""
        with torch.no_grad(), self._accelerator.autocast():
            return perplexity(self.twin.act(self.factors()), held).ppl

    def expected(self) -> Tensor:
        """Expected sparsity (Eq. 3), with gradient; once settled, that of the plan."""
        return self.budget.sparsity(self._stays() if self.settled else self.gates.stay())

    def actual(self) -> float:
        """Sparsity if every unit went that rather goes than stays."""
        stays = self._stays() if self.settled else self.gates.median() > 0
        return float(self.budget.sparsity(stays.detach()))

    def _stays(self) -> Tensor:
        return staying(self.gates, self.plan.removed)

    def _teacher(self, expected: float) -> Snapshot | None:
        """Who teaches this step, with the LoRA in place; None for the dense model, or nobody."""
        state, schedule = self.state, self.schedule
        if self.settings.distillation != "progressive":
            return None
        if state.began is None and schedule.reached(state.step, expected):
            state.began = state.step
        if state.began is None:
            level = schedule.before_target(expected, self.bank.levels)
        else:
            level = schedule.after_target(state.step, state.began, self.bank.levels)
        if level == DENSE:
            return None
        if level != self._seated:
            self.twin.seat(self.bank[level])
            self._seated = level
        return self.bank[level]

    def _gradients(self, snapshot: Snapshot | None) -> tuple[float, float]:
        """Gradients of the losses on this step's batch. Returns what was learned from, and the layer loss."""
        rows = rows_of_step(len(self.windows), self.settings.batch, self.state.step, self.seed)
        parts = self.windows[rows].to(self.twin.model.device).chunk(self.settings.accumulate)
        learned = layer = 0.0
        for ids in parts:
            with self._accelerator.autocast():
                one, other = self._losses(ids, snapshot)
            loss = (one + self.settings.layer_weight * other) / len(parts)
            self._accelerator.backward(loss)
            learned += float(one.detach()) / len(parts)
            layer += float(other.detach()) / len(parts)
        return learned, layer

    def _losses(self, ids: Tensor, snapshot: Snapshot | None) -> tuple[Tensor, Tensor]:
        """The divergence from the teacher (or the next-token loss) and the layer loss, scalars."""
        settings, twin, nothing = self.settings, self.twin, torch.zeros((), device=ids.device)
        if settings.distillation == "none":
            return next_token_loss(twin.act(self._factors()), ids)[0], nothing
        layers = settings.layer_weight > 0
        if self.second is not None:
            with torch.no_grad():
                teacher = forward(self.second, ids, self._second_layers if layers else [])
        else:
            teacher = twin.teach(ids, snapshot, layers=layers)
        twin.act(self._factors())
        student = twin.forward(ids, layers=layers)
        apart = layer_loss(student.layers, teacher.layers) if layers else nothing
        return distillation(student.logits, teacher.logits, settings.temperature), apart

    def _factors(self) -> Tensor:
        """The student's factors in this step, with gradient; random until the plan is fixed."""
        if self.settled:
            return self.factors()
        return self.gates.sample(generator(self.seed, self.state.step))

    def _finite_gradients(self) -> bool:
        """Whether every gradient is a number; LoRA's are shortened to length 1."""
        updates = [one for one in self.optimizer.param_groups[1]["params"] if one.grad is not None]
        long = torch.nn.utils.clip_grad_norm_(updates, 1.0) if updates else torch.zeros(())
        masks = self.gates.log_alpha.grad
        return bool(long.isfinite()) and (masks is None or bool(masks.isfinite().all()))

    def _update(self, target: float, expected: float) -> None:
        """One step of the masks and LoRA downwards, one of the multipliers upwards."""
        left = 1.0 - self.state.step / self.settings.steps
        self.optimizer.param_groups[1]["lr"] = self.settings.lora_rate * left
        if not self.settled:
            self._push(target, expected)
        self.optimizer.step()
        self.gates.clamp(low=0.0 if self.settled else -BOUND)

    def _push(self, target: float, expected: float) -> None:
        """Add the Lagrangian's gradient to that of the masks (Eq. 7), and let the multipliers climb."""
        log_alpha = self.gates.log_alpha
        assert log_alpha.grad is not None
        (slope,) = torch.autograd.grad(self.expected(), log_alpha)
        self.lagrangian.feel(log_alpha.grad, slope)
        push = self.settings.sparsity_weight * self.lagrangian.push(expected, target)
        log_alpha.grad.add_(slope, alpha=push)
        self.lagrangian.ascend(expected, target)

    def _count(self, finite: bool) -> None:
        state = self.state
        state.skipped += not finite
        state.in_a_row = 0 if finite else state.in_a_row + 1
        if state.in_a_row >= _TOO_MANY:
            raise TrainingError(
                f"The loss was not finite in {state.in_a_row} steps in a row, the last of them step "
                f"{state.step}; try float32, or lower lora_rate and mask_rate."
            )

    def _collect(self) -> None:
        """Take a snapshot when the student has reached a new level; not of the target itself."""
        state, schedule = self.state, self.schedule
        if self.settings.distillation != "progressive" or state.began is not None or self.settled:
            return
        expected = float(self.expected().detach())
        level = schedule.level(expected)
        if level > state.level and level * schedule.interval < self.sparsity - 1e-9:
            self.bank.add(level, self.twin.snapshot(self.gates.median(), expected))
            state.level, state.levels = level, self.bank.levels

    def save(self) -> None:
        """Replace the checkpoint. Raises StorageError; the one before stays good then."""
        held = self.lagrangian
        self.state.multipliers = [held.linear, held.quadratic, held.pull]
        self.state.removed = {group: list(units) for group, units in self.plan.removed.items()}
        checkpoint.save(self.folder, self.state, self._tensors(), self.optimizer)

    def resume(self) -> bool:
        """Go on from the checkpoint, if there is one. Raises ArtifactError if it is damaged."""
        found = checkpoint.load(self.folder, self._tensors(), self.optimizer)
        if found is None:
            return False
        self.state = found
        self.plan = replace(self.plan, removed={k: tuple(v) for k, v in found.removed.items()})
        held = self.lagrangian
        held.linear, held.quadratic, held.pull = found.multipliers
        self.bank.restore(found.levels)
        return True

    def _tensors(self) -> dict[str, Tensor]:
        return {"log_alpha": self.gates.log_alpha, **self.twin.updates()}
