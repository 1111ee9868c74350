"""Who teaches a pruned model: the dense one in memory, or what was kept of it on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from core.devices.spread import layers_of
from core.graph.hooks import outputs_of
from core.recover.examples import Example
from core.recover.logits import Kept
from core.recover.losses import distillation, kept_distillation
from core.recover.shards import Frozen


class Lesson(Protocol):
    """What a teacher says of some sequences.

    Attributes:
        layers: the output of every layer, (batch, length, hidden) each; empty where nobody wants them.
    """

    @property
    def layers(self) -> tuple[Tensor, ...]: ...

    def divergence(self, student: Tensor, counted: Tensor) -> Tensor:
        """The mean over the positions that count, (batch, length), of how far a student's logits are off."""


class Teacher(Protocol):
    """Who says what to expect."""

    def teach(self, batch: Sequence[Example], inputs: Mapping[str, Tensor]) -> Lesson:
        """What there is to learn of sequences.

        Args:
            inputs: the same as the model reads them, each (batch, longest).
        """

    def frozen(self) -> list[Frozen]:
        """The models that it has in memory."""


@dataclass
class Spoken:
    """A lesson of a model in memory; it can be used once."""

    logits: Tensor
    temperature: float
    layers: tuple[Tensor, ...] = ()

    def divergence(self, student: Tensor, counted: Tensor) -> Tensor:
        """See `Lesson`."""
        return distillation(student, self.logits, self.temperature, counted)


@dataclass(frozen=True)
class Live:
    """A model in memory that teaches.

    Attributes:
        layers: its decoder layers, where what they give is wanted.
        channels: the hidden channels that the student still has; None for all.
    """

    model: Any
    temperature: float
    layers: Sequence[nn.Module] = ()
    channels: Tensor | None = None

    @torch.no_grad()
    def teach(self, batch: Sequence[Example], inputs: Mapping[str, Tensor]) -> Spoken:
        """See `Teacher`."""
        with outputs_of(self.layers) as outputs:
            logits = self.model(**inputs, use_cache=False).logits
        if self.channels is not None:
            outputs = [out[..., self.channels] for out in outputs]
        return Spoken(logits, self.temperature, tuple(outputs))

    def frozen(self) -> list[Frozen]:
        """See `Teacher`."""
        return [Frozen(self.model, layers_of(self.model))]


@dataclass(frozen=True)
class Read:
    """A lesson that was kept."""

    values: Tensor
    indices: Tensor
    temperature: float
    layers: tuple[Tensor, ...] = ()

    def divergence(self, student: Tensor, counted: Tensor) -> Tensor:
        """See `Lesson`."""
        return kept_distillation(student, self.values, self.indices, self.temperature, counted)


@dataclass(frozen=True)
class FromDisk:
    """What was kept of a model teaches."""

    kept: Kept
    temperature: float

    def teach(self, batch: Sequence[Example], inputs: Mapping[str, Tensor]) -> Read:
        """See `Teacher`. Raises ArtifactError where a sequence was not kept."""
        values, indices = self.kept.of(batch)
        device = inputs["input_ids"].device
        return Read(values.to(device), indices.to(device), self.temperature)

    def frozen(self) -> list[Frozen]:
        """See `Teacher`."""
        return []
