"""Run a model's own decoder layers one at a time, whatever the family.

What a model hands to each layer besides the hidden states (masks, rotary embeddings, biases) is recorded
once, while stand-ins replace the layers. After that a layer is a function of its hidden states, and only
those of the layer at work are held in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import NotPrunableError
from core.graph.hooks import hooked, replaced
from core.graph.records import Graph

_HIDDEN = "hidden_states"


class _Stop(Exception):
    """Ends a forward as soon as its result is known."""


@dataclass
class _Call:
    """The arguments of one layer for one batch, without its hidden states, which may come by name."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    by_name: bool


@dataclass
class Layers:
    """The layers of a model, ready to run one by one over some batches.

    Attributes:
        modules: the layers, in order.
        first: what enters the first layer, batch by batch, (batch, length, hidden).
    """

    modules: list[nn.Module]
    first: list[Tensor] = field(default_factory=list)
    _calls: list[list[_Call]] = field(default_factory=list)

    def run(self, layer: int, batch: int, hidden: Tensor) -> Tensor:
        """What leaves a layer, (batch, length, hidden); `hidden` does not change."""
        call = self._calls[batch][layer]
        inside = hidden.clone()  # some layers add to their input in place
        with torch.no_grad():
            if call.by_name:
                out = self.modules[layer](*call.args, **{_HIDDEN: inside}, **call.kwargs)
            else:
                out = self.modules[layer](inside, *call.args, **call.kwargs)
        return _tensor(out)

    def until(self, module: nn.Module, layer: int, batch: int, hidden: Tensor) -> Tensor:
        """What a module inside a layer reads under masks, (batch, length, features); the rest is not run."""
        inputs: list[Tensor] = []

        def keep(_: nn.Module, args: tuple[Any, ...]) -> None:
            inputs.append(args[0])
            raise _Stop

        with hooked([module.register_forward_pre_hook(keep)]), suppress(_Stop):
            self.run(layer, batch, hidden)
        return inputs[0]


@contextmanager
def watching(modules: Iterable[nn.Module]) -> Iterator[list[tuple[nn.Module, Tensor, Tensor]]]:
    """Collect what modules read and return while they run, in order: (module, input, output)."""
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []

    def keep(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        seen.append((module, args[0], out))

    with hooked(module.register_forward_hook(keep) for module in modules):
        yield seen


def layers_of(model: Any, graph: Graph, batches: Sequence[Tensor]) -> Layers:
    """Prepare the layers of a model for some batches; check that one by one they compute what it does.

    Args:
        batches: token ids, (batch, length) each, on the model's device.

    Raises:
        NotPrunableError: the layers share more than one stream, or are not called in order.
    """
    modules = [model.get_submodule(name) for name in graph.layer_modules]
    try:
        sample = batches[0][:1, :8]
        outs = _outputs(model, modules, sample)
        layers = _recorded(model, modules, [sample], outs)
        hidden = layers.first[0]
        for layer in range(len(modules)):
            hidden = layers.run(layer, 0, hidden)
        exact = torch.allclose(hidden, _tensor(outs[-1]), rtol=1e-3, atol=1e-4 * float(hidden.abs().max()))
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise NotPrunableError(f"{_refusal(graph)} ({error}).") from error
    if not exact:
        raise NotPrunableError(f"{_refusal(graph)}.")
    return _recorded(model, modules, batches, outs)


def _refusal(graph: Graph) -> str:
    return (
        f"The layers of {graph.model} cannot be run one by one, so nothing can be refitted between them; "
        "prune with --reconstruct none"
    )


def _outputs(model: Any, modules: Sequence[nn.Module], ids: Tensor) -> list[Any]:
    """What each layer returns for one batch."""
    outs: list[Any] = []
    hooks = (module.register_forward_hook(lambda _m, _a, out: outs.append(out)) for module in modules)
    with hooked(hooks), torch.no_grad():
        model(input_ids=ids, use_cache=False)
    if len(outs) != len(modules):
        raise ValueError(f"{len(modules)} layers ran {len(outs)} times")
    return [(out[0].clone(), *out[1:]) if isinstance(out, tuple) else out.clone() for out in outs]


def _tensor(out: Any) -> Tensor:
    hidden: Tensor = out[0] if isinstance(out, tuple) else out
    return hidden


def _recorded(model: Any, modules: list[nn.Module], batches: Iterable[Tensor], outs: Sequence[Any]) -> Layers:
    """Run the model with stand-ins for its layers, and record the arguments of each."""
    layers = Layers(modules)
    with replaced(modules, _stand_ins(outs, layers)):
        for ids in batches:
            layers._calls.append([])
            with suppress(_Stop), torch.no_grad():
                model(input_ids=ids, use_cache=False)
    return layers


def _stand_ins(outs: Sequence[Any], layers: Layers) -> list[Any]:
    """Forwards that pass a layer's input on, shaped as its output; the last one ends the model's forward."""

    def stand_in(number: int, out: Any) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            by_name = not args
            hidden = kwargs.pop(_HIDDEN) if by_name else args[0]
            calls = layers._calls[-1]
            if len(calls) != number:
                raise ValueError("the layers do not run in order")
            if number == 0:
                layers.first.append(hidden.detach().clone())
            calls.append(_Call(args[1:], kwargs, by_name))
            if number == len(outs) - 1:
                raise _Stop
            return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

        return forward

    return [stand_in(number, out) for number, out in enumerate(outs)]
