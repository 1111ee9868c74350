"""A second device on a machine that has none: numbers on it are ours, but meet no others.

A test inside `two_devices()` may say `cuda:9`. What lies there is computed on the CPU and tells its device;
an operation over numbers of both devices fails as on a real card, and so does handing them to NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

AWAY = "cuda:9"
_THERE = torch.device(AWAY)
#: Between devices numbers are copied, and nothing else.
_ACROSS = (Tensor.copy_, Tensor.data.__set__)  # type: ignore[attr-defined]
_OUT = (Tensor.numpy, Tensor.__array__, Tensor.__dlpack__)


class _TwoDevices(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[int, Any] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.to and len(args) > 1 and isinstance(args[1], Tensor):
            args = (args[0], _THERE if self.is_away(args[1]) else torch.device("cpu"), args[1].dtype)
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor) and not x.is_meta]
        away = [x for x in tensors if self.is_away(x)]
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return _THERE if away else func(*args, **kwargs)
        target, args, kwargs = _target(func, args, kwargs, away)
        if func == Tensor.cpu and away:
            target = torch.device("cpu")
        if target is None:
            self._check(func, tensors, away)
            out = func(*args, **kwargs)
            if away and len(away) == len([x for x in tensors if x.dim()]):
                tree_map_only(Tensor, self._keep, out)
            return out
        out = func(*args, **kwargs)
        if target == _THERE:
            return self._keep(out.clone() if out.requires_grad else out.detach().clone())
        return out.clone() if away and out.dim() else out

    def is_away(self, tensor: Tensor) -> bool:
        """Whether a tensor lies on the second device."""
        return _pointer(tensor) in self._kept

    def _keep(self, tensor: Tensor) -> Tensor:
        if not tensor.is_meta and tensor.dim():
            self._kept[_pointer(tensor)] = tensor.untyped_storage()  # so that no other gets its address
        return tensor

    def _check(self, func: Any, tensors: list[Tensor], away: list[Tensor]) -> None:
        if away and func in _OUT:
            raise TypeError(f"can't convert {AWAY} device type tensor to numpy")
        near = [x for x in tensors if x.dim() and not self.is_away(x)]
        if away and near and func not in _ACROSS:
            name = getattr(func, "__name__", func)
            raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got two of them")


def _pointer(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _target(func: Any, args: Any, kwargs: dict[str, Any], away: list[Tensor]) -> tuple[Any, Any, Any]:
    """The device that a call names, if any, and the call without the second one."""

    def is_device(value: Any) -> bool:
        return isinstance(value, torch.device) or (func == Tensor.to and isinstance(value, str))

    named = [value for value in args if is_device(value)]
    if "device" in kwargs and kwargs["device"] is not None:
        named.append(kwargs["device"])
        kwargs["device"] = _real(kwargs["device"])
    args = tuple(_real(value) if is_device(value) else value for value in args)
    return (torch.device(named[0]) if named else None), args, kwargs


def _real(device: Any) -> torch.device:
    return torch.device("cpu") if torch.device(device) == _THERE else torch.device(device)


@contextmanager
def two_devices() -> Iterator[_TwoDevices]:
    """Let there be a device called `cuda:9`, for the length of a `with` block."""
    with _TwoDevices() as mode:
        yield mode


def is_away(mode: _TwoDevices, model: nn.Module, name: str) -> bool:
    """Whether a parameter lies on the second device."""
    return mode.is_away(model.get_parameter(name))
