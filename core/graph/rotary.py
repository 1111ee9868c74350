"""Rotary embeddings with their frequencies held fixed.

Some kinds choose frequencies by the length of the input, that is, by the numbers in a tensor, which a model
without weights does not have. What is rotated by how much has nothing to do with what couples.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from torch import nn
from transformers import modeling_rope_utils

from core.graph.hooks import replaced


def frequencies_held(model: nn.Module) -> AbstractContextManager[None]:
    """For the length of a `with` block, no module chooses its frequencies anew."""
    inner = {module: forward for module in model.modules() if (forward := _inside(module)) is not None}
    return replaced([*inner], [partial(forward, module) for module, forward in inner.items()])


def _inside(module: nn.Module) -> Any:
    """The forward that transformers wraps with its choice of frequencies, or None."""
    forward: Any = type(module).forward
    while hasattr(forward, "__wrapped__"):
        chooses = forward.__code__.co_filename == modeling_rope_utils.__file__
        forward = forward.__wrapped__
        if chooses:
            return forward
    return None
