"""The one training loop: recovery and NutePrune say what a step is, and this takes one after the other.

It is a loop of our own and not transformers' Trainer, whose public hooks do not suffice: Trainer keeps
optimizer, schedule and random states as pickles, which nothing here may write or load, and reads them back
in private methods; it shortens all gradients alike; and it cannot leave out a step whose gradients are not
finite in one of several processes. accelerate brings mixed precision and the talk between processes.

Everything random follows from the seed and the number of a step or an epoch, so there is no random state to
save: a training that goes on at a step draws what it would have drawn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from core.errors import StopRequested, TrainingError
from core.recover import checkpoint
from core.recover.shards import Shards
from core.recover.team import Team

#: How many losses in a row that are not finite end the training.
_TOO_MANY = 20
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True)
class Course:
    """How long a training is, and how much it reads at a time.

    Attributes:
        steps: in all; count: rows that there are to train on.
        batch: rows per step; part: of its share of them, how many a process reads at once at most.
        save_every: steps between two checkpoints.
    """

    steps: int
    count: int
    batch: int
    part: int
    save_every: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What became of a step, numbered from 0.

    Attributes:
        numbers: the means over all parts and processes of what `Training.loss` measured.
        finite: False where the step was skipped, because the loss or its gradients were not finite.
    """

    step: int
    numbers: list[float]
    finite: bool


class Training(Protocol[R_co]):
    """What a method says of its training.

    Attributes:
        optimizer: over everything that is trained; the gradients of a group that has a `max_norm` are
            shortened to that length.
        rates: the options to lower where the loss is not finite.
        over: whether the steps that are left would gain nothing, so that they are not taken.
    """

    course: Course
    optimizer: Optimizer
    rates: str

    @property
    def over(self) -> bool: ...

    def begin(self, step: int, rows: list[int]) -> None:
        """Get ready for a step on these rows, whichever process reads them."""

    def loss(self, rows: list[int]) -> tuple[Tensor, Sequence[Tensor]]:
        """The loss of some rows of this step, and what to measure of them; all scalars."""

    def update(self, step: int) -> None:
        """Take the step: the gradients are finite, and those of all processes together."""

    def end(self, outcome: Outcome) -> R_co:
        """Close a step, taken or skipped; what there is to tell of it."""

    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors of a checkpoint beside those of the optimizer: they are filled in place."""

    def facts(self) -> Mapping[str, Any]:
        """The rest of a checkpoint, as JSON."""

    def restore(self, facts: Mapping[str, Any], step: int) -> None:
        """Go on with these facts after N steps; the tensors are filled already."""


@dataclass
class State:
    """How far a training is.

    Attributes:
        step: steps done; skipped: of them, those left out because the loss was not finite.
        in_a_row: how many of the last steps were left out.
    """

    step: int = 0
    skipped: int = 0
    in_a_row: int = 0


class Loop(Generic[R_co]):
    """A training under way.

    Args:
        team: who trains; every process takes the same steps.
        path: of the checkpoint.
        shards: the weights that are sharded over the team, if any are.

    Attributes:
        seconds: what each step took.
    """

    def __init__(
        self, training: Training[R_co], team: Team, path: Path, shards: Shards | None = None
    ) -> None:
        self.training, self.team, self.path = training, team, path
        self.shards = shards or Shards(team)
        self.state, self.seconds = State(), list[float]()

    def run(self, on_step: Callable[[R_co], None], on_progress: Callable[[int, int], None]) -> None:
        """Take the steps that are left; the first process of a team says when that is over, and saves.

        Args:
            on_step: told what there is to tell of each; on_progress: told (steps done, steps in all). It may
                raise StopRequested, which goes on after a checkpoint was written.

        Raises:
            StorageError: the checkpoint before stays good. Else as `step`.
        """
        course, state = self.training.course, self.state
        with self.shards.in_touch():
            while not self._agree(self._over):
                on_step(self.step())
                if self._over or state.step % course.save_every == 0:
                    self.save()
                try:
                    on_progress(state.step, course.steps)
                except StopRequested:
                    self.save()
                    self._agree(True)
                    raise

    def _agree(self, over: bool) -> bool:
        self.shards.meet()
        return self.team.agree(over)

    @property
    def _over(self) -> bool:
        return self.state.step >= self.training.course.steps or self.training.over

    def step(self) -> R_co:
        """Train on one batch.

        Raises:
            TrainingError: the loss is not finite many times in a row.
            LaunchError: a process that trains along is gone.
        """
        began, course, step = time.perf_counter(), self.training.course, self.state.step
        torch.manual_seed(_seed(course.seed, step) + self.team.accelerator.process_index)
        rows = rows_of_step(course.count, course.batch, step, course.seed)
        self.training.begin(step, rows)
        with self.shards.together():
            numbers = self._gradients(self.team.share(rows))
        finite = all(map(math.isfinite, numbers)) and self._finite_gradients()
        if finite:
            self.training.update(step)
        self.training.optimizer.zero_grad(set_to_none=True)
        self._count(finite)
        report = self.training.end(Outcome(step, numbers, finite))
        self.state.step += 1
        self.seconds.append(time.perf_counter() - began)
        return report

    def _gradients(self, rows: list[int]) -> list[float]:
        """Gradients of the loss of all processes together; the means of what was measured."""
        most = min(self.training.course.part, len(rows))
        size = next(size for size in range(most, 0, -1) if len(rows) % size == 0)  # all parts count alike
        parts = [rows[first : first + size] for first in range(0, len(rows), size)]
        numbers: list[float] = []
        for part in parts:
            with self.team.accelerator.autocast():
                loss, measured = self.training.loss(part)
            self.team.accelerator.backward(loss / len(parts))
            numbers = numbers or [0.0] * len(measured)
            numbers = [a + float(b.detach()) / len(parts) for a, b in zip(numbers, measured, strict=True)]
        trained = [value for group in self.training.optimizer.param_groups for value in group["params"]]
        return self.team.average(numbers, [value.grad for value in trained if value.grad is not None])

    def _finite_gradients(self) -> bool:
        """Whether every gradient is a number; those that have a longest length are shortened to it."""
        groups = self.training.optimizer.param_groups
        lengths = [clip_grad_norm_(group["params"], group.get("max_norm", math.inf)) for group in groups]
        return all(bool(length.isfinite()) for length in lengths)

    def _count(self, finite: bool) -> None:
        state = self.state
        state.skipped += not finite
        state.in_a_row = 0 if finite else state.in_a_row + 1
        if state.in_a_row >= min(_TOO_MANY, self.training.course.steps):
            raise TrainingError(
                f"The loss was not finite in {state.in_a_row} steps in a row, the last of them step "
                f"{state.step}; try float32 with precision no, or lower {self.training.rates}."
            )

    def save(self) -> None:
        """Replace the checkpoint, in a team the first one does. Raises StorageError; the one before stays."""
        if not self.team.leads:
            return
        training = self.training
        facts = {**asdict(self.state), **training.facts()}
        checkpoint.save(self.path, facts, training.tensors(), training.optimizer)

    def resume(self) -> bool:
        """Go on from the checkpoint, if there is one; a whole team does from what the first one is at.

        Raises:
            ArtifactError: it is damaged. StorageError: it cannot be written for the others.
            LostTouchError: a process that trains along is gone.
        """
        training = self.training
        if not self.team.leads:
            self.team.wait()
        goes_on = checkpoint.load(self.path, training.tensors(), training.optimizer, self._restore)
        if self.team.leads and self.team.size > 1:
            self.save()
            self.team.wait()
        return goes_on

    def _restore(self, facts: dict[str, Any]) -> None:
        self.state = State(**{field.name: facts[field.name] for field in fields(State)})
        self.training.restore(facts, self.state.step)


def rows_of_step(count: int, batch: int, step: int, seed: int) -> list[int]:
    """Which of `count` rows a step reads: every row once per epoch, in an order of its own."""
    places = range(step * batch, (step + 1) * batch)
    epochs = {place // count for place in places}
    orders = {epoch: torch.randperm(count, generator=generator(seed, -1 - epoch)) for epoch in epochs}
    return [int(orders[place // count][place % count]) for place in places]


def generator(seed: int, number: int) -> torch.Generator:
    """A generator of its own for one step, or with a negative number for one epoch."""
    return torch.Generator().manual_seed(_seed(seed, number))


def _seed(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number) % 2**63
