"""Calls of modules during a recorded pass: what each was handed and gave, and the operations between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from core.graph.hooks import hooked

#: Position or name of an argument.
Argument = int | str


@dataclass(frozen=True)
class Call:
    """One call of a module.

    Attributes:
        module: its name.
        start, stop: the operations that ran inside it, `stop` exclusive.
        arguments: the values of the tensors it was handed.
        outputs: the values it gave, -1 for what is no tensor; of no other containers than tuples.
        several: 0 where it gave a tensor itself, else how many things its tuple has.
    """

    module: str
    start: int
    stop: int
    arguments: dict[Argument, int]
    outputs: tuple[int, ...]
    several: int

    def within(self, other: Call) -> bool:
        """Whether it ran inside another call."""
        return self is not other and other.start <= self.start and self.stop <= other.stop


@contextmanager
def named_modules(
    model: nn.Module,
    enter: Callable[[str, dict[Argument, Any]], None],
    leave: Callable[[Any], None],
) -> Iterator[None]:
    """Tell of every module that begins, with its name and arguments, and of what it gives when it ends."""
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    running = [""]

    def entering(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # An activation function that several layers share has a name in each of them.
        inside = running[-1] + "."
        aliases = names[id(module)]
        running.append(next((name for name in aliases if name.startswith(inside)), aliases[0]))
        given: dict[Argument, Any] = dict(enumerate(args))
        given.update(kwargs)
        enter(running[-1], given)

    def leaving(_: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        running.pop()
        leave(out)

    entries = [module.register_forward_pre_hook(entering, with_kwargs=True) for module in model.modules()]
    exits = [module.register_forward_hook(leaving) for module in model.modules()]
    with hooked([*entries, *exits]):
        yield
