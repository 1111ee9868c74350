"""Attention with any subset of its query heads, while the cache keeps one entry per key-value head.

Two ways, both without a new forward. Models that dispatch through the attention interface of
`transformers` get a wrapper that expands key and value heads *after* the cache. Others have the
outputs of their key and value matrices expanded before it, which costs cache, but works.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

_PREFIX = "ragged_"
_INTERFACE = "ALL_ATTENTION_FUNCTIONS"


class LayerConfig:
    """A model's config as a module sees it: some values of its own, all else from the base.

    Values are looked up at every access, so switching the model's attention implementation later
    reaches the layer too.
    """

    def __init__(self, base: Any, values: dict[str, Any], *, ragged: bool = False) -> None:
        self.__dict__.update(_base=base, _values=values, _ragged=ragged)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_base" not in self.__dict__:  # half-built while being copied
            raise AttributeError(name)
        if name in self._values:
            return self._values[name]
        value = getattr(self._base, name)
        if name == "_attn_implementation" and self._ragged:
            return _register(value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._base, name, value)


def uses_interface(module: nn.Module) -> bool:
    """Whether this attention module calls whatever function the attention interface holds."""
    return hasattr(module, "config") and _INTERFACE in _forward_of(module).__code__.co_names


def _forward_of(module: nn.Module) -> Any:
    forward: Any = type(module).forward
    while hasattr(forward, "__wrapped__"):
        forward = forward.__wrapped__
    return forward


def _register(implementation: str) -> str:
    """File the ragged twin of an attention function under its own name and return that."""
    name = _PREFIX + implementation
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(name, _ragged_twin(implementation))
    return name


def _ragged_twin(implementation: str) -> Callable[..., Any]:
    def ragged(module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        index = module.kv_index.to(key.device)  # (query heads,)
        # The stock eager function is not in the interface; each modelling file brings its own.
        stock = _forward_of(module).__globals__.get("eager_attention_forward")
        function = ALL_ATTENTION_FUNCTIONS.get(implementation, stock)
        # (batch, key-value heads, tokens, head_dim) -> (batch, query heads, tokens, head_dim)
        return function(
            module, query, key.index_select(1, index), value.index_select(1, index), *args, **kwargs
        )

    return ragged


def expand_after_cache(module: Any, kv_index: list[int]) -> None:
    """Let each query head of a module that uses the interface read the key-value head of this number."""
    module.register_buffer("kv_index", torch.tensor(kv_index, device="cpu"), persistent=False)
    module.num_key_value_groups = 1


def expand_outputs(linear: nn.Module, features: list[int]) -> None:
    """Repeat and reorder a matrix's outputs: feature i of the result is output `features[i]`."""
    linear.register_buffer("output_index", torch.tensor(features, device="cpu"), persistent=False)
    linear.register_forward_hook(_expand)


def move_expansion(source: nn.Module, target: nn.Module) -> None:
    """Let `target`, which wraps `source` or is wrapped by it, repeat outputs instead, if any are."""
    if not hasattr(source, "output_index"):
        return
    for key, hook in list(source._forward_hooks.items()):
        if hook is _expand:
            del source._forward_hooks[key]
    features = source.get_buffer("output_index").tolist()
    del source.output_index
    expand_outputs(target, features)


def _expand(owner: Any, args: tuple[Any, ...], out: Tensor) -> Tensor:
    return out.index_select(-1, owner.output_index.to(out.device))
