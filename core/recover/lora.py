"""Low-rank updates on the matrices of a pruned model, found through its graph, and merged into them.

Source: LoRA (arXiv:2106.09685), W + alpha / rank * B A, through peft.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.errors import InputError
from core.graph.records import Graph
from core.memory.shapes import chosen
from core.surgery.ragged import move_expansion

if TYPE_CHECKING:  # peft takes a second to import
    from peft import PeftModel


def target_modules(model: nn.Module, graph: Graph, targets: str) -> list[str]:
    """The names of the matrices to train, in the order of the model.

    Args:
        targets: `all` those in the decoder layers, or only those whose slices belong to `attention` units or
            lie within an attention block, to `ffn` units, or that make queries and values (`query_value`).

    Raises:
        InputError: the model has none of that kind as a module of its own.
    """
    wanted = chosen(graph, targets)
    names = [name for name, module in model.named_modules() if _plain(module) and wanted(name)]
    if not names:
        raise InputError(
            f"This model has no matrices to train for targets '{targets}': they are no linear layers of "
            "their own, e.g. a stack of experts. Choose other targets."
        )
    return names


def _plain(module: nn.Module) -> bool:
    """Whether it gives the product alone: a router may be a linear layer that says more."""
    return type(module).forward in (nn.Linear.forward, Conv1D.forward)


def attach(
    model: PreTrainedModel, graph: Graph, *, rank: int, alpha: float, targets: str, dropout: float = 0.0
) -> PeftModel:
    """Give the chosen matrices low-rank updates that start at zero; nothing else is trained.

    Args:
        alpha: updates are scaled by alpha / rank; targets: see `target_modules`; dropout: share of the inputs
            of an update that are dropped.

    Returns:
        peft's model around `model`. Raises InputError as `target_modules` does.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    names = target_modules(model, graph, targets)
    stored_sideways = any(isinstance(model.get_submodule(name), Conv1D) for name in names)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=names,
        bias="none",
        task_type=TaskType.CAUSAL_LM,
        fan_in_fan_out=stored_sideways,
    )
    with warnings.catch_warnings():
        # peft corrects it per module, and says so; it also asks transformers by an old name.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        wrapped = get_peft_model(model, config)
    for layer in lora_layers(wrapped):
        move_expansion(layer.base_layer, layer)
    return wrapped


def merge(wrapped: PeftModel) -> PreTrainedModel:
    """Add the updates to the matrices and take peft's layers out again.

    Returns:
        The model that was given to `attach`, in evaluation mode.
    """
    for layer in lora_layers(wrapped):
        move_expansion(layer, layer.base_layer)
    model: PreTrainedModel = wrapped.merge_and_unload()
    if hasattr(model, "peft_config"):
        del model.peft_config
    model.requires_grad_(True)
    return model.eval()


def updates(wrapped: nn.Module) -> dict[str, nn.Parameter]:
    """What is trained, by name; the tensors themselves, not copies."""
    return {name: value for name, value in wrapped.named_parameters() if value.requires_grad}


def lora_layers(wrapped: nn.Module) -> Iterator[Any]:
    """peft's layers around the chosen matrices."""
    from peft.tuners.lora import LoraLayer

    return (module for module in wrapped.modules() if isinstance(module, LoraLayer))
