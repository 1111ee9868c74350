"""The training of masks and LoRA: one step after the other, each known by its number.

Source: NutePrune (arXiv:2402.09773), Eq. 7 and Section 3.2. Beyond the paper: in the last steps the units
that go are fixed (`settle`), so that LoRA learns to do without exactly those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.capture.statistics import next_token_loss
from core.errors import TrainingError
from core.evaluate.perplexity import perplexity
from core.graph.records import Graph, Group
from core.nuteprune import checkpoint
from core.nuteprune.bank import Bank
from core.nuteprune.checkpoint import State
from core.nuteprune.gates import Gates
from core.nuteprune.lora_gradient import LoraGradient
from core.nuteprune.losses import distillation, layer_loss
from core.nuteprune.masking import Masking
from core.nuteprune.randomness import rows_of_step
from core.nuteprune.schedule import DENSE, Schedule
from core.nuteprune.team import Team
from core.nuteprune.twin import Snapshot, Twin, forward
from core.spec.nuteprune import Settings

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
        team: who trains; every process makes the same steps.
        allocation: how the plan is made, by the names of the arguments of `core.plan.allocation.allocate`.
        folder: of the checkpoint and the teachers.
        second: a second model that teaches, for `second_model`.

    Raises:
        NotPrunableError: the target is out of reach, or `rule` cannot tell the units of a group apart.
    """

    def __init__(
        self,
        twin: Twin,
        gates: Gates,
        graph: Graph,
        groups: Sequence[Group],
        windows: Tensor,
        settings: Settings,
        team: Team,
        *,
        allocation: Mapping[str, Any],
        seed: int,
        folder: Path,
        second: Any = None,
    ) -> None:
        self.twin, self.gates, self.settings, self.second = twin, gates, settings, second
        self.groups, self.windows, self.seed = groups, windows, seed
        self.masks = Masking(gates, graph, groups, settings, allocation, seed)
        watched = settings.rule == "lora_gradient"
        self._watch = LoraGradient(twin.model, graph, groups, gates) if watched else None
        self.bank, self.folder = Bank(folder, team.leads), folder
        self.schedule = Schedule(
            self.masks.sparsity, settings.gap, settings.interval, settings.warmup_steps, settings.steps,
            settings.last, settings.stage_1, settings.stage_2,
        )  # fmt: skip
        self.state = State()
        self._seated = DENSE
        self._second_layers = [second.get_submodule(name) for name in graph.layer_modules] if second else []
        self.team, self._accelerator = team, team.accelerator
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [gates.log_alpha], "lr": settings.mask_step, "betas": _BETAS, "weight_decay": 0.0},
                {"params": list(twin.updates().values()), "lr": settings.lora_rate, "weight_decay": 0.0},
            ]
        )

    def step(self) -> Report:
        """Train on one batch.

        Raises:
            TrainingError: the loss is not finite many times in a row.
            LaunchError: a process that trains along is gone.
        """
        state, settings, masks = self.state, self.settings, self.masks
        masks.aim(state.step)
        expected = float(masks.expected().detach())
        snapshot = self._teacher(expected)
        loss, layer = self._gradients(snapshot)
        finite = math.isfinite(loss + layer) and self._finite_gradients()
        if finite:
            self._update()
        self.optimizer.zero_grad(set_to_none=True)
        self._count(finite)
        teacher = None if settings.distillation == "none" else snapshot.sparsity if snapshot else 0.0
        held = masks.lagrangian
        report = Report(
            state.step, masks.target, expected, masks.actual(),
            held.pull * held.linear, held.pull * held.quadratic,
            teacher, loss, layer if settings.layer_weight else None, finite,
        )  # fmt: skip
        state.step += 1
        self._collect()
        if state.step == settings.settle_step:
            masks.settle()
        return report

    def perplexity(self, held: Tensor) -> float:
        """Perplexity of the model as it would be cut now, on windows kept apart, (windows, length)."""
        with torch.no_grad(), self._accelerator.autocast():
            return perplexity(self.twin.act(self.masks.final()), held).ppl

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
        """Gradients of the losses on this step's batch, of all processes together.

        Returns:
            What was learned from, and the layer loss.
        """
        rows = rows_of_step(len(self.windows), self.settings.batch, self.state.step, self.seed)
        parts = self.windows[self.team.share(rows)].to(self.twin.model.device).chunk(self.settings.accumulate)
        learned = layer = 0.0
        for ids in parts:
            with self._accelerator.autocast():
                one, other = self._losses(ids, snapshot)
            loss = (one + self.settings.layer_weight * other) / len(parts)
            self._accelerator.backward(loss)
            learned += float(one.detach()) / len(parts)
            layer += float(other.detach()) / len(parts)
        trained = [one for group in self.optimizer.param_groups for one in group["params"]]
        gradients = [one.grad for one in trained if one.grad is not None]
        learned, layer = self.team.average([learned, layer], gradients)
        return learned, layer

    def _losses(self, ids: Tensor, snapshot: Snapshot | None) -> tuple[Tensor, Tensor]:
        """The divergence from the teacher (or the next-token loss) and the layer loss, scalars."""
        settings, twin, nothing = self.settings, self.twin, torch.zeros((), device=ids.device)
        if settings.distillation == "none":
            return next_token_loss(twin.act(self.masks.factors()), ids)[0], nothing
        layers = settings.layer_weight > 0
        if self.second is not None:
            with torch.no_grad():
                teacher = forward(self.second, ids, self._second_layers if layers else [])
        else:
            teacher = twin.teach(ids, snapshot, layers=layers)
        twin.act(self.masks.factors())
        student = twin.forward(ids, layers=layers)
        apart = layer_loss(student.layers, teacher.layers) if layers else nothing
        return distillation(student.logits, teacher.logits, settings.temperature), apart

    def _finite_gradients(self) -> bool:
        """Whether every gradient is a number; LoRA's are shortened to length 1."""
        updates = [one for one in self.optimizer.param_groups[1]["params"] if one.grad is not None]
        long = torch.nn.utils.clip_grad_norm_(updates, 1.0) if updates else torch.zeros(())
        masks = self.gates.log_alpha.grad
        return bool(long.isfinite()) and (masks is None or bool(masks.isfinite().all()))

    def _update(self) -> None:
        """One step of the masks and LoRA downwards, one of the multipliers upwards."""
        left = 1.0 - self.state.step / self.settings.steps
        self.optimizer.param_groups[1]["lr"] = self.settings.lora_rate * left
        if self._watch is not None:
            self.masks.note(self._watch.importance())
        self.masks.push()
        self.optimizer.step()
        self.masks.clamp()

    def _count(self, finite: bool) -> None:
        state = self.state
        state.skipped += not finite
        state.in_a_row = 0 if finite else state.in_a_row + 1
        if state.in_a_row >= min(_TOO_MANY, self.settings.steps):
            raise TrainingError(
                f"The loss was not finite in {state.in_a_row} steps in a row, the last of them step "
                f"{state.step}; try float32, or lower lora_rate and mask_rate."
            )

    def _collect(self) -> None:
        """Take a snapshot when the student has reached a new level; not of the target itself."""
        state, schedule = self.state, self.schedule
        if self.settings.distillation != "progressive" or state.began is not None:
            return
        if self.masks.settled:
            return
        expected = float(self.masks.expected().detach())
        level = schedule.level(expected)
        if level > state.level and level * schedule.interval < schedule.target - 1e-9:
            self.bank.add(level, self.twin.snapshot(self.masks.certain(), expected))
            state.level, state.levels = level, self.bank.levels

    def save(self) -> None:
        """Replace the checkpoint. Raises StorageError; the one before stays good then."""
        held = self.masks.lagrangian
        self.state.multipliers = [held.linear, held.quadratic, held.pull]
        self.state.removed = {group: list(units) for group, units in self.masks.plan.removed.items()}
        checkpoint.save(self.folder, self.state, self._tensors(), self.optimizer)

    def resume(self) -> bool:
        """Go on from the checkpoint, if there is one. Raises ArtifactError if it is damaged."""
        found = checkpoint.load(self.folder, self._tensors(), self.optimizer)
        if found is None:
            return False
        self.state = found
        if found.step >= self.settings.settle_step:
            self.masks.settle({group: tuple(units) for group, units in found.removed.items()})
        held = self.masks.lagrangian
        held.linear, held.quadratic, held.pull = found.multipliers
        self.bank.restore(found.levels)
        return True

    def _tensors(self) -> dict[str, Tensor]:
        measured = {} if self._watch is None else {"importance": self.masks.importance}
        return {"log_alpha": self.gates.log_alpha, **measured, **self.twin.updates()}
