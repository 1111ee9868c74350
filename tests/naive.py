"""What a pass over a model is to find, the plain way: autograd sample by sample, one hook at a time."""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel


def naive_products(model: PreTrainedModel, tokens: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """w g_s for every sample with plain autograd and the model's own loss."""
    found = []
    for sample in tokens:
        model.zero_grad()
        model(sample[None], labels=sample[None], use_cache=False).loss.backward()
        found.append({name: p.detach() * p.grad for name, p in model.named_parameters()})
    model.zero_grad()
    return found


def inputs_of(model: PreTrainedModel, tokens: torch.Tensor, name: str) -> tuple[np.ndarray, np.ndarray]:
    """What a module reads and makes at every position, (tokens, features) each, float64."""
    seen: list[np.ndarray] = []

    def keep(_: torch.nn.Module, args: tuple[torch.Tensor], out: torch.Tensor) -> None:
        seen.extend(one.flatten(0, 1).double().numpy() for one in (args[0], out))

    handle = model.get_submodule(name).register_forward_hook(keep)
    with torch.no_grad():
        model(tokens, use_cache=False)
    handle.remove()
    return seen[0], seen[1]
