"""A model whose layers differ: a stock class of transformers, and the differences as data in its config.

This file lies beside the weights of every pruned model, so that `AutoModelForCausalLM.from_pretrained(folder,
trust_remote_code=True)` reads it wherever torch and transformers are. It knows no family: `config.pruned`
says which parameters have which shapes, which sizes modules keep, which heads read which keys, and which
modules are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

_PREFIX = "ragged_"


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


def forward_of(module: nn.Module) -> Any:
    """The forward that the class of a module was written with, below its decorators."""
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
        stock = forward_of(module).__globals__.get("eager_attention_forward")
        function = ALL_ATTENTION_FUNCTIONS.get(implementation, stock)
        # (batch, key-value heads, tokens, head_dim) -> (batch, query heads, tokens, head_dim)
        return function(
            module, query, key.index_select(1, index), value.index_select(1, index), *args, **kwargs
        )

    return ragged


def expand_after_cache(module: Any, kv_index: Sequence[int]) -> None:
    """Let each query head of a module that uses the interface read the key-value head of this number."""
    module.register_buffer("kv_index", torch.tensor(kv_index, device="cpu"), persistent=False)
    module.num_key_value_groups = 1


def expand_outputs(linear: nn.Module, features: Sequence[int]) -> None:
    """Repeat and reorder a matrix's outputs: feature i of the result is output `features[i]`."""
    linear.register_buffer("output_index", torch.tensor(features, device="cpu"), persistent=False)
    linear.register_forward_hook(expand)


def expand(owner: Any, args: tuple[Any, ...], out: Tensor) -> Tensor:
    """A forward hook: the outputs of `expand_outputs`."""
    return out.index_select(-1, owner.output_index.to(out.device))


class Skipped(nn.Module):
    """Stands where a module was whose block is gone: the residual stream goes on without it.

    Args:
        gives: `zeros` to be added to the stream; else what it is handed goes on.
        argument: position or name of what it is handed.
        several: 0 to give a tensor, else how many things the module gave, of which the others are None.
        cache: the number under which its keys and values would be cached. Tokens are counted there, one
            number for each, since a model asks some layer of its cache how far a text has come.
    """

    def __init__(self, gives: str, argument: int | str, several: int = 0, cache: int | None = None) -> None:
        super().__init__()
        self.gives, self.argument, self.several, self.cache = gives, argument, several, cache

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        handed: Tensor = args[self.argument] if isinstance(self.argument, int) else kwargs[self.argument]
        if self.cache is not None:
            for given in (*args, *kwargs.values()):
                if isinstance(given, Cache):
                    marks = handed.new_zeros(handed.shape[0], 1, handed.shape[1], 1)
                    given.update(marks, marks[..., :0], self.cache)
        out = torch.zeros_like(handed) if self.gives == "zeros" else handed
        return (out, *[None] * (self.several - 1)) if self.several else out


class Scaled:
    """A forward hook that multiplies what a norm without a weight gives."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return out * self.factor


class PerHead:
    """A forward pre-hook that hands over only the entries of heads that stay, such as ALiBi slopes.

    Args:
        places: (position or name of an argument, dimension); it is heads or batch x heads long.
        heads: the old number of heads; left: the heads that stay.
    """

    def __init__(self, places: Sequence[Sequence[Any]], heads: int, left: Sequence[int]) -> None:
        self.places, self.heads, self.left = [tuple(place) for place in places], heads, list(left)

    def __call__(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        new_args, new_kwargs = list(args), dict(kwargs)
        for key, dim in self.places:
            holder: Any = new_args if isinstance(key, int) else new_kwargs
            holder[key] = self._pick(holder[key], dim)
        return tuple(new_args), new_kwargs

    def _pick(self, value: Tensor, dim: int) -> Tensor:
        batch = value.shape[dim] // self.heads
        rows = [b * self.heads + head for b in range(batch) for head in self.left]
        return value.index_select(dim, value.new_tensor(rows, dtype=torch.long))


def shrink(model: nn.Module, record: dict[str, Any], prefix: str = "") -> None:
    """Give a stock model the shapes of the pruned one, in place; what its parameters hold is cut off.

    Args:
        record: `config.pruned`; prefix: what its names begin with, where the model is only the inner part.
    """

    def own(part: str) -> dict[str, Any]:
        entries = record.get(part, {}).items()
        return {name[len(prefix) :]: value for name, value in entries if name.startswith(prefix)}

    for path, told in own("skipped").items():
        owner_path, _, name = path.rpartition(".")
        setattr(model.get_submodule(owner_path), name, Skipped(**told))
    _reshape(model, own("shapes"))
    for path, values in own("attributes").items():
        module = model.get_submodule(path)
        for name, value in values.items():
            kind = type(getattr(module, name))  # JSON knows no tuples
            setattr(module, name, kind(value) if isinstance(value, list) else value)
    indices = own("kv_index")
    for path, values in own("config").items():
        owner: Any = model.get_submodule(path)
        owner.config = LayerConfig(owner.config, values, ragged=path in indices)
    for path, index in indices.items():
        expand_after_cache(model.get_submodule(path), index)
    for path, features in own("outputs").items():
        expand_outputs(model.get_submodule(path), features)
    for path, factor in own("scales").items():
        model.get_submodule(path).register_forward_hook(Scaled(factor))
    for path, told in own("per_head").items():
        model.get_submodule(path).register_forward_pre_hook(PerHead(**told), with_kwargs=True)


def _reshape(model: nn.Module, shapes: dict[str, Sequence[int]]) -> None:
    """Cut parameters to these shapes in every module that uses them; those that are new begin as zeros."""
    users: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            users.setdefault(id(parameter), []).append((module, name))
    for path, shape in shapes.items():
        owner_path, _, name = path.rpartition(".")
        owner = model.get_submodule(owner_path)
        old = owner._parameters.get(name)
        if old is None:
            setattr(owner, name, nn.Parameter(next(owner.parameters()).new_zeros(tuple(shape))))
        elif old.shape != torch.Size(shape):
            left = old.detach()[tuple(slice(size) for size in shape)].clone()
            new = nn.Parameter(left, requires_grad=old.requires_grad)
            for user, key in users[id(old)]:
                user._parameters[key] = new


def refill(model: nn.Module, record: dict[str, Any], prefix: str = "") -> None:
    """Write numbers again into buffers that are not saved, which `from_pretrained` empties."""
    for part, buffer in (("kv_index", "kv_index"), ("outputs", "output_index")):
        for name, index in record.get(part, {}).items():
            module: Any = model.get_submodule(name[len(prefix) :]) if name.startswith(prefix) else None
            if module is not None:
                held = getattr(module, buffer)
                device = "cpu" if held.is_meta else held.device
                setattr(module, buffer, torch.tensor(index, device=device))


class Pruned:
    """Stands before a stock class of transformers, and makes it the pruned model of its config."""

    pruned_prefix = ""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        shrink(self, config.pruned, self.pruned_prefix)  # type: ignore[arg-type]

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As the stock class does. Raises ValueError if the folder lacks weights."""
        door: Any = super()
        model, told = door.from_pretrained(*args, output_loading_info=True, **kwargs)
        if told["missing_keys"]:
            raise ValueError(f"The saved model lacks {', '.join(sorted(told['missing_keys'])[:3])}.")
        refill(model, model.config.pruned, cls.pruned_prefix)
        return (model, told) if output_loading_info else model
