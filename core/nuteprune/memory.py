"""How much memory a training takes beside its model, before it is begun: an estimate, and what there is."""

from __future__ import annotations

import psutil
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.graph.records import Graph
from core.recover.lora import target_modules
from core.spec.nuteprune import Settings

#: Bytes for each number that LoRA learns: itself, its gradient, two of Adam's, and that of the teacher.
_LEARNED = 20
#: Logits in memory at once: the student's, the teacher's, and what the divergence makes of them, in float32.
_LOGITS = 3 * 4


def needed_bytes(model: PreTrainedModel, graph: Graph, settings: Settings, length: int) -> int:
    """About what a training takes beside the weights.

    What is kept for the backward pass is taken to be what the matrices of the layers read and write: it was
    within a third of what a Llama-like model keeps.

    Args:
        length: tokens in a window.
    """
    layers = tuple(f"{name}." for name in graph.layer_modules)
    sizes = {
        name: sum(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    }
    lora = target_modules(model, graph, settings.lora_targets) if settings.lora_rank else []
    learned = settings.lora_rank * sum(sizes[name] for name in lora) * _LEARNED
    config = model.config.get_text_config()
    kept = sum(size for name, size in sizes.items() if name.startswith(layers)) * model.dtype.itemsize
    if settings.layer_weight:
        kept += 3 * len(layers) * config.hidden_size * 4
    tokens = settings.batch // settings.processes // settings.accumulate * length
    second = sum(value.nbytes for value in model.parameters())
    twice = second if settings.distillation == "second_model" else 0
    return learned + tokens * (kept + _LOGITS * config.vocab_size) + twice


def free_bytes(device: torch.device) -> int:
    """Memory that nothing holds: of the device, or of the machine where that has none of its own."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)
