"""Attention with any subset of its query heads, while the cache keeps one entry per key-value head.

Two ways, both without a new forward. Models that dispatch through the attention interface of
`transformers` get a wrapper that expands key and value heads *after* the cache. Others have the
outputs of their key and value matrices expanded before it, which costs cache, but works. Both stand in
`core.surgery.modeling_pruned`, since saved models bring them along.
"""

from __future__ import annotations

from torch import nn

from core.surgery.modeling_pruned import expand, expand_outputs, forward_of

_INTERFACE = "ALL_ATTENTION_FUNCTIONS"


def uses_interface(module: nn.Module) -> bool:
    """Whether this attention module calls whatever function the attention interface holds."""
    return hasattr(module, "config") and _INTERFACE in forward_of(module).__code__.co_names


def move_expansion(source: nn.Module, target: nn.Module) -> None:
    """Let `target`, which wraps `source` or is wrapped by it, repeat outputs instead, if any are."""
    if not hasattr(source, "output_index"):
        return
    for key, hook in list(source._forward_hooks.items()):
        if hook is expand:
            del source._forward_hooks[key]
    features = source.get_buffer("output_index").tolist()
    del source.output_index
    expand_outputs(target, features)
