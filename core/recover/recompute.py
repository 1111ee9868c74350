"""Layers that keep what they read, and compute what is inside them again on the way back.

Known as gradient checkpointing (arXiv:1604.06174). It costs one more forward of the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from core.graph.hooks import replaced


def recomputing(layers: Sequence[nn.Module]) -> AbstractContextManager[None]:
    """Let layers forget what is inside them, for forwards within the block; backwards may come after it.

    Whatever a layer reads beside its inputs, e.g. masks, must be the same on the way back.

    Args:
        layers: decoder layers; those below them may be hooked.
    """
    return replaced(layers, map(_again, layers))


def _again(layer: nn.Module) -> Callable[..., Any]:
    forward = layer.forward

    def run(*args: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **named)
        # only dropout draws within a layer, and to note the random state lets a device wait
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=layer.training, **named)

    return run
