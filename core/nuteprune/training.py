"""What a step of NutePrune is: masks and LoRA learn from a teacher, under a sparsity target.

Source: NutePrune (arXiv:2402.09773), Eq. 7 and Section 3.2. Beyond the paper: in the last steps the units
that go are fixed (`settle`), so that LoRA learns to do without exactly those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.capture.losses import next_token_loss
from core.devices.spread import layers_of
from core.graph.records import Graph, Group
from core.nuteprune.bank import Bank
from core.nuteprune.gates import Gates
from core.nuteprune.lora_gradient import LoraGradient
from core.nuteprune.masking import Masking
from core.nuteprune.schedule import DENSE, Schedule
from core.nuteprune.twin import Snapshot, Twin, forward
from core.recover.loop import Course, Outcome
from core.recover.losses import distillation, layer_loss, relative_layer_loss
from core.recover.recompute import recomputing
from core.recover.shards import Frozen
from core.spec.nuteprune import Settings

#: Adam's memory for the masks: short, so that they turn round when the target is passed.
_BETAS = (0.5, 0.99)


@dataclass(frozen=True)
class Report:
    """What one step was like.

    Attributes:
        target, expected: sparsity asked for at this step, and expected of the gates; actual: that of the
            gates that are rather closed than open.
        lambda_1, lambda_2: the multipliers of Eq. 11.
        teacher: sparsity of the teacher, 0 the dense model, None if nobody taught.
        loss: what was learned from: the divergence, with its share of the next-token loss where that has a
            weight, or the next-token loss without a teacher.
        layer_loss: None where it has no weight.
        finite: False where the step was skipped, because the loss was not finite.
    """

    step: int
    target: float
    expected: float
    actual: float
    lambda_1: float
    lambda_2: float
    teacher: float | None
    loss: float
    layer_loss: float | None
    finite: bool


@dataclass(frozen=True)
class Judged:
    """How the model did once its plan was fixed.

    Attributes:
        best: the lowest perplexity on the windows kept apart; best_step: after which step that was.
        looked: after which step it was measured last.
    """

    best: float = math.inf
    best_step: int = 0
    looked: int = 0


class MaskTraining:
    """Masks and LoRA under training; see `core.recover.loop.Training`.

    Args:
        windows: token ids, (windows, length).
        allocation: how the plan is made, by the names of the arguments of `core.plan.allocation.allocate`.
        folder: of the teachers; leads: whether this process writes them.
        second: a second model that teaches, for `second_model`.

    Attributes:
        began: the step at which stage 2 began, or None.

    Raises:
        NotPrunableError: the target is out of reach, or `rule` cannot tell the units of a group apart.
    """

    rates = "lora_rate and mask_rate"

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
        leads: bool = True,
        second: PreTrainedModel | None = None,
    ) -> None:
        self.twin, self.gates, self.settings, self.second = twin, gates, settings, second
        self.groups, self.windows = groups, windows
        self.began: int | None = None
        self.masks = Masking(gates, graph, groups, settings, allocation, seed)
        watched = settings.rule == "lora_gradient"
        self._watch = LoraGradient(twin.model, graph, groups, gates) if watched else None
        self.bank, self._seated = Bank(folder, leads), DENSE
        forgetful = settings.gradient_checkpointing == "on"
        self._forgetful = twin.layers if forgetful else ()
        self._expected, self._judged = 0.0, Judged()
        self._snapshot: Snapshot | None = None
        self._second_layers = [second.get_submodule(name) for name in graph.layer_modules] if second else []
        self.schedule = Schedule(
            self.masks.sparsity, settings.gap, settings.interval, settings.warmup_steps, settings.steps,
            settings.last, settings.stage_1, settings.stage_2,
        )  # fmt: skip
        self.course = Course(
            settings.steps, len(windows), settings.batch, settings.part, settings.checkpoint_every, seed
        )
        masks = {"params": [gates.log_alpha], "lr": settings.mask_step, "betas": _BETAS}
        lora = {"params": list(twin.updates().values()), "lr": settings.lora_rate, "max_norm": 1.0}
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW([masks, lora], weight_decay=0.0)

    def frozen(self) -> list[Frozen]:
        """The models that are called, of which nothing but LoRA is trained."""
        second = [] if self.second is None else [Frozen(self.second, layers_of(self.second))]
        return [Frozen(self.twin.model, self.twin.layers, self.twin.adapters()), *second]

    @property
    def over(self) -> bool:
        """Whether nothing was gained since the plan is fixed, for as long as `patience` goes."""
        settings, judged = self.settings, self._judged
        patience = settings.patience * settings.measure_every
        return bool(patience) and judged.looked - max(judged.best_step, settings.settle_step) >= patience

    def judge(self, step: int, ppl: float) -> None:
        """Take note of the perplexity, after N steps, of the model as it would be cut now."""
        if step < self.settings.settle_step:
            return
        better = ppl < self._judged.best
        best, when = (ppl, step) if better else (self._judged.best, self._judged.best_step)
        self._judged = Judged(best, when, step)

    def begin(self, step: int, rows: list[int]) -> None:
        """Let the target rise, and choose who teaches."""
        self.masks.aim(step)
        self._expected = float(self.masks.expected().detach())
        self._snapshot = self._teacher(step)

    def _teacher(self, step: int) -> Snapshot | None:
        """Who teaches this step, with the LoRA in place; None for the dense model, or nobody."""
        schedule, expected = self.schedule, self._expected
        if self.settings.distillation != "progressive":
            return None
        if self.began is None and schedule.reached(step, expected):
            self.began = step
        if self.began is None:
            level = schedule.before_target(expected, self.bank.levels)
        else:
            level = schedule.after_target(step, self.began, self.bank.levels)
        if level == DENSE:
            return None
        if level != self._seated:
            self.twin.seat(self.bank[level])
            self._seated = level
        return self.bank[level]

    def loss(self, rows: list[int]) -> tuple[Tensor, Sequence[Tensor]]:
        """Eq. 7 without the Lagrangian; what was learned from, and the layer loss."""
        learned, layer = self._losses(self.windows[rows].to(self.twin.model.device))
        return learned + self.settings.layer_weight * layer, (learned, layer)

    def _losses(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The divergence from the teacher, the next-token loss, or both; and the layer loss; scalars."""
        settings, twin, nothing = self.settings, self.twin, torch.zeros((), device=ids.device)
        if settings.distillation == "none":
            with recomputing(self._forgetful):
                return next_token_loss(twin.act(self.masks.factors()), ids)[0], nothing
        layers = settings.layer_weight > 0
        if self.second is not None:
            with torch.no_grad():
                teacher = forward(self.second, ids, self._second_layers if layers else [])
        else:
            teacher = twin.teach(ids, self._snapshot, layers=layers)
        twin.act(self.masks.factors())
        with recomputing(self._forgetful):
            student = twin.forward(ids, layers=layers)
        far = {"paper": layer_loss, "relative": relative_layer_loss}[settings.layer_loss]
        apart = far(student.layers, teacher.layers) if layers else nothing
        learned = distillation(student.logits, teacher.logits, settings.temperature)
        if settings.next_token:
            own = next_token_loss(twin.model, ids, student.logits)[0]
            learned = learned + settings.next_token * own
        return learned, apart

    def update(self, step: int) -> None:
        """One step of the masks and LoRA downwards, one of the multipliers upwards."""
        self.optimizer.param_groups[1]["lr"] = self.settings.lora_step(step)
        if self._watch is not None:
            self.masks.note(self._watch.importance())
        self.masks.push()
        self.optimizer.step()
        self.masks.clamp()

    def end(self, outcome: Outcome) -> Report:
        """Take a snapshot where one is due, and fix the plan where it is time."""
        settings, held, taught = self.settings, self.masks.lagrangian, self._snapshot
        (learned, layer), step = outcome.numbers, outcome.step
        report = Report(
            step, self.masks.target, self._expected, self.masks.actual(),
            held.pull * held.linear, held.pull * held.quadratic,
            None if settings.distillation == "none" else taught.sparsity if taught else 0.0,
            learned, layer if settings.layer_weight else None, outcome.finite,
        )  # fmt: skip
        if settings.distillation == "progressive" and self.began is None and not self.masks.settled:
            self._collect()
        if step + 1 == settings.settle_step:
            self.masks.settle()
        return report

    def _collect(self) -> None:
        """Take a snapshot when the student has reached a new level; not of the target itself."""
        expected, schedule = float(self.masks.expected().detach()), self.schedule
        level = schedule.level(expected)
        new = level > max(self.bank.levels, default=DENSE)
        if new and level * schedule.interval < schedule.target - 1e-9:
            self.bank.add(level, self.twin.snapshot(self.masks.snapshot(), expected))

    def tensors(self) -> dict[str, Tensor]:
        """The masks, LoRA, and what was measured of the units."""
        measured = {} if self._watch is None else {"importance": self.masks.importance}
        return {"log_alpha": self.gates.log_alpha, **measured, **self.twin.updates()}

    def facts(self) -> dict[str, Any]:
        """The multipliers (lambda_1, lambda_2 and the pull), both stages, the teachers, and what goes."""
        held = self.masks.lagrangian
        return {
            "multipliers": [held.linear, held.quadratic, held.pull],
            "began": self.began,
            "levels": self.bank.levels,
            "removed": self.masks.plan.removed,
            **({"judged": asdict(self._judged)} if self._judged.looked else {}),
        }

    def restore(self, facts: Mapping[str, Any], step: int) -> None:
        """Raises ArtifactError where a teacher is missing or damaged."""
        held, self.began = self.masks.lagrangian, facts["began"]
        if step >= self.settings.settle_step:
            self.masks.settle({group: tuple(units) for group, units in facts["removed"].items()})
        held.linear, held.quadratic, held.pull = facts["multipliers"]
        self.bank.restore(facts["levels"])
        self._judged = Judged(**facts.get("judged", {}))
