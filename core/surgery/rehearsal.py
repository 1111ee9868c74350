"""A short run of a model, to see what its modules are handed and what its layers make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.errors import NotPrunableError
from core.graph.hooks import evaluating, hooked, numbers_unseen
from core.graph.records import Graph
from core.graph.rotary import frequencies_held

#: Position or name of an argument, and one of its dimensions.
Place = tuple[int | str, int]
#: How many decoder layers ran before, and the output of this one -> another output.
Instead = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class Rehearsal:
    """What a short run of a model showed.

    Attributes:
        logits: (batch, tokens, vocabulary).
        layers: decoder layer and its output, (batch, tokens, hidden), in the order in which they ran.
        arguments: attention module -> argument -> shape.
    """

    batch: int
    logits: Tensor
    layers: list[tuple[str, Tensor]]
    arguments: dict[str, dict[int | str, tuple[int, ...]]]


def rehearse(
    model: PreTrainedModel,
    graph: Graph,
    *,
    when: str,
    batch: int = 2,
    tokens: int = 7,
    copies: int = 1,
    instead: Instead | None = None,
) -> Rehearsal:
    """Run a few arbitrary tokens through a model in evaluation mode.

    Args:
        when: ends the sentence "X fails ..." should it fail.
        copies: how many times the batch goes through, in one.
        instead: what the model goes on with in the place of a decoder layer's output.

    Raises:
        NotPrunableError: the forward fails; names the module it fails in.
    """
    layers: list[tuple[str, Tensor]] = []
    arguments: dict[str, dict[int | str, tuple[int, ...]]] = {}

    def keep_output(name: str) -> Any:
        def hook(_: nn.Module, args: Any, out: Any) -> Any:
            several = isinstance(out, (tuple, list))
            layers.append((name, out[0] if several else out))
            if instead is None:
                return None
            other = instead(len(layers) - 1, layers[-1][1])
            return type(out)([other, *out[1:]]) if several else other

        return hook

    def keep_shapes(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            named: Iterable[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
            arguments[name] = {key: tuple(value.shape) for key, value in named if isinstance(value, Tensor)}

        return hook

    find = model.get_submodule
    hooks = [find(name).register_forward_hook(keep_output(name)) for name in graph.layer_modules]
    for name in {attention.module for attention in graph.attentions}:
        hooks.append(find(name).register_forward_pre_hook(keep_shapes(name), with_kwargs=True))
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.arange(batch * tokens, device=model.device).view(batch, tokens) * 7 % vocabulary
    ids = ids.repeat(copies, 1)
    with hooked(hooks), evaluating(model), torch.no_grad(), _shapes_only(model), _naming_module(model, when):
        logits = model(input_ids=ids, use_cache=False).logits
    return Rehearsal(batch * copies, logits, layers, arguments)


def per_head_arguments(model: PreTrainedModel, graph: Graph, first: Rehearsal) -> dict[str, list[Place]]:
    """Arguments of attention modules with one entry per head, such as ALiBi slopes: module -> places.

    A dimension counts if it follows the number of heads (or batch x heads) in two runs of different size.
    """
    heads = {attention.module: attention.heads for attention in graph.attentions}
    candidates = {name: _head_sized(first, name, heads[name]) for name in first.arguments}
    if not any(candidates.values()):
        return {}
    second = rehearse(model, graph, when="as it is", batch=3, tokens=11)
    return {
        name: sorted(places & _head_sized(second, name, heads[name]), key=str)
        for name, places in candidates.items()
        if name in second.arguments
    }


def _head_sized(rehearsal: Rehearsal, name: str, heads: int) -> set[Place]:
    sizes = {heads, heads * rehearsal.batch} if heads > 1 else set()
    return {
        (key, dim)
        for key, shape in rehearsal.arguments[name].items()
        for dim, size in enumerate(shape)
        if size in sizes
    }


@contextmanager
def _shapes_only(model: PreTrainedModel) -> Iterator[None]:
    """For a model without weights: buffers lose their numbers too, and transformers looks at none.

    Whatever a forward leaves behind in its modules, such as frequencies for long inputs, has no numbers
    either, and is forgotten afterwards.
    """
    if model.device.type != "meta":
        yield
        return
    before = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    try:
        for module, _, buffers in before:
            module._buffers |= {name: b.to("meta") for name, b in buffers.items() if b is not None}
        with numbers_unseen(), frequencies_held(model):
            yield
    finally:
        for module, attributes, buffers in before:
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers |= buffers


@contextmanager
def _naming_module(model: nn.Module, when: str) -> Iterator[None]:
    """Turn an error inside a forward into one that names the innermost module."""
    inside: list[str] = []

    def enter(name: str) -> Any:
        return lambda *_: inside.append(name)

    def leave(*_: Any) -> None:
        inside.pop()

    hooks = []
    for name, module in model.named_modules():
        hooks += [
            module.register_forward_pre_hook(enter(name), prepend=True),
            module.register_forward_hook(leave),
        ]
    try:
        with hooked(hooks):
            yield
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        where = inside[-1] if inside else "the model"
        raise NotPrunableError(f"{where} fails {when}: {str(error).splitlines()[0]}") from error
