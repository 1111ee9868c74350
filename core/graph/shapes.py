"""The shapes that operations give on tensors without numbers, remembered so that layers repeat nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Size, stride and dtype.
_Shape = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]


class Shapes:
    """Results of operations without numbers, worked out once per kind of operands.

    Much of PyTorch's shape arithmetic is written in Python, and the layers of a model repeat it. An
    operation that neither writes to its operands nor gives views of them depends on nothing else.
    """

    def __init__(self) -> None:
        self._results: dict[Any, tuple[_Shape, ...]] = {}
        self._pure: dict[Any, bool] = {}

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `func` returns."""
        if func not in self._pure:
            self._pure[func] = _is_pure(func)
        if not self._pure[func]:
            return func(*args, **kwargs)
        key = (func, _kind(args), _kind(kwargs))
        shapes = self._results.get(key)
        if shapes is not None:
            results = tuple(
                torch.empty_strided(size, stride, dtype=kind, device="meta") for size, stride, kind in shapes
            )
            return results if len(results) > 1 else results[0]
        out = func(*args, **kwargs)
        written = out if isinstance(out, tuple) else (out,)
        if all(isinstance(tensor, Tensor) and tensor.is_meta for tensor in written):
            self._results[key] = tuple((tuple(t.shape), t.stride(), t.dtype) for t in written)
        return out


def _is_pure(func: Any) -> bool:
    """Whether an operation gives new tensors and leaves its operands alone."""
    schema = func._schema
    plain = all(str(value.type) == "Tensor" for value in schema.returns) and len(schema.returns) > 0
    return plain and all(value.alias_info is None for value in (*schema.arguments, *schema.returns))


def _kind(argument: Any) -> Any:
    """All of an argument that the shape of a result can depend on, as a key to look up by."""
    if isinstance(argument, Tensor):
        return argument.shape, argument.stride(), argument.dtype, argument.device
    if isinstance(argument, (list, tuple)):
        return tuple(_kind(item) for item in argument)
    if isinstance(argument, dict):
        return tuple((name, _kind(item)) for name, item in argument.items())
    return type(argument), argument
