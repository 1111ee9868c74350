"""One model in two roles: student and teacher are the same weights with other masks and LoRA.

Source: NutePrune (arXiv:2402.09773), Section 3.1, Efficient distillation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.graph.hooks import outputs_of
from core.graph.records import Graph
from core.nuteprune.gates import Gates
from core.recover.lora import attach, lora_layers, merge
from core.surgery.masks import apply_soft_masks

if TYPE_CHECKING:  # peft takes a second to import
    from peft import PeftModel

STUDENT, _TEACHER = "default", "teacher"


@dataclass(frozen=True)
class Snapshot:
    """What makes a teacher of the base model.

    Attributes:
        factors: of every gated unit, (units,); updates: LoRA's tensors by name; both on the CPU.
        sparsity: expected sparsity of the student when it was taken.
    """

    factors: Tensor
    updates: dict[str, Tensor] = field(default_factory=dict)
    sparsity: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What a forward pass gives: logits, (batch, length, vocabulary); every layer's output if asked for."""

    logits: Tensor
    layers: tuple[Tensor, ...] = ()


class Twin:
    """A model under gates and LoRA that can act as the student or as a teacher.

    Args:
        model: in evaluation mode; gets hooks and, with a rank above 0, peft's layers until `release`.
        rank, alpha, targets: of LoRA; rank 0 for none.

    Attributes:
        model: the model itself; layers: its decoder layers.
    """

    def __init__(
        self, model: PreTrainedModel, graph: Graph, gates: Gates, *, rank: int, alpha: float, targets: str
    ) -> None:
        self.model, self._gates = model, gates
        self.layers = [model.get_submodule(name) for name in graph.layer_modules]
        self._factors: Mapping[str, Tensor] = {}
        self._wrapped: PeftModel | None = None
        model.requires_grad_(False)
        if rank:
            self._wrapped = attach(model, graph, rank=rank, alpha=alpha, targets=targets)
            self._wrapped.add_adapter(_TEACHER, self._wrapped.peft_config[STUDENT])
        self._lora = list(lora_layers(model))
        masks = {group: partial(self._factor, group) for group in gates.slices}
        self._handle = apply_soft_masks(model, graph, masks)

    def _factor(self, group: str) -> Tensor | None:
        return self._factors.get(group)

    def updates(self) -> dict[str, nn.Parameter]:
        """The student's LoRA tensors by name."""
        return self._of(STUDENT)

    def adapters(self) -> list[nn.Parameter]:
        """All LoRA tensors: the student's and the teacher's."""
        return [*self._of(STUDENT).values(), *self._of(_TEACHER).values()]

    def _of(self, adapter: str) -> dict[str, nn.Parameter]:
        return {
            name.replace(f".{adapter}.", "."): parameter
            for name, parameter in self.model.named_parameters()
            if f".{adapter}." in name
        }

    def act(self, factors: Tensor) -> PreTrainedModel:
        """Be the student with these factors, (units,), until another role is asked for; the model."""
        for layer in self._lora:
            if layer.disable_adapters:
                layer.enable_adapters(True)
            layer.set_adapter(STUDENT)
        self._factors = self._gates.split(factors)
        return self.model

    @torch.no_grad()
    def teach(self, ids: Tensor, snapshot: Snapshot | None, *, layers: bool = False) -> Answer:
        """The answer of a teacher, whose LoRA `seat` put in place; the dense model if `snapshot` is None.

        Args:
            ids: token ids, (batch, length); layers: whether every layer's output is wanted.
        """
        if snapshot is None:
            self._factors = {}
            for layer in self._lora:
                layer.enable_adapters(False)
        else:
            self._factors = self._gates.split(snapshot.factors.to(ids.device))
            for layer in self._lora:
                layer.set_adapter(_TEACHER, inference_mode=True)
        return self.forward(ids, layers=layers)

    def forward(self, ids: Tensor, *, layers: bool = False) -> Answer:
        """The answer of whoever acts now."""
        return forward(self.model, ids, self.layers if layers else [])

    @torch.no_grad()
    def seat(self, snapshot: Snapshot) -> None:
        """Copy a teacher's LoRA to the device; the one before is overwritten."""
        for name, parameter in self._of(_TEACHER).items():
            parameter.copy_(snapshot.updates[name])

    def snapshot(self, factors: Tensor, sparsity: float) -> Snapshot:
        """The student as it is now, copied to the CPU."""
        updates = {name: value.detach().to("cpu", copy=True) for name, value in self.updates().items()}
        return Snapshot(factors.detach().to("cpu", copy=True), updates, sparsity)

    def release(self) -> PreTrainedModel:
        """Merge the student's LoRA into the weights and take everything off again; the model, unmasked."""
        self.act(torch.ones_like(self._gates.log_alpha))
        self._handle.remove()
        if self._wrapped is None:
            self.model.requires_grad_(True)
            return self.model
        self._wrapped.delete_adapter(_TEACHER)
        return merge(self._wrapped)


def forward(model: nn.Module, ids: Tensor, layers: list[nn.Module]) -> Answer:
    """Logits, and what these layers give on the way."""
    with outputs_of(layers) as outputs:
        logits = model(input_ids=ids, use_cache=False).logits
    return Answer(logits, tuple(outputs))
