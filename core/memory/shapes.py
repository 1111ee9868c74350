"""A model's sizes, as far as memory depends on them; the weights are not read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

from core.graph.records import Graph

Shape = tuple[int, ...]
#: Classes of modules whose matrices LoRA can update.
PLAIN = ("Linear", "Conv1D")
#: Kinds whose members lie in the feed-forward part of a layer, or within its attention.
_FFN = ("ffn_channel", "expert")
_ATTENTION = ("query_head", "kv_group")


@dataclass(frozen=True)
class Shapes:
    """Sizes of a model.

    Attributes:
        parameters: name -> shape, of those that are there.
        layers: for each decoder layer its matrices: the module's name -> numbers that a token reads and
            writes there, in a stack of experts by those that it is sent to.
        plain: modules in the layers that multiply with one matrix and do nothing else.
        readers: for each layer, inputs and outputs of the matrices that read units.
        hidden, vocabulary, heads: of the residual stream, the output layer, and each attention.
        units: kind of units -> the parameters that hold some.
        chosen: what to train, as LoRA's targets -> whether a module is one of them.
    """

    parameters: Mapping[str, Shape]
    layers: tuple[Mapping[str, float], ...]
    plain: frozenset[str]
    readers: tuple[tuple[tuple[int, int], ...], ...]
    hidden: int
    vocabulary: int
    heads: int
    units: Mapping[str, frozenset[str]]
    chosen: Callable[[str], Callable[[str], bool]]

    @cached_property
    def numbers(self) -> int:
        """Of all parameters."""
        return sum(map(prod, self.parameters.values()))

    @cached_property
    def in_layers(self) -> tuple[int, ...]:
        """Numbers of the matrices of each layer."""
        return tuple(
            sum(prod(self.parameters[_weight(name, self.parameters)]) for name in layer)
            for layer in self.layers
        )

    @cached_property
    def passed(self) -> tuple[float, ...]:
        """What a token reads and writes at the matrices of each layer, in numbers."""
        return tuple(sum(layer.values()) for layer in self.layers)

    def learned(self, targets: str, rank: int) -> int:
        """Numbers of LoRA's updates of this rank."""
        wanted = self.chosen(targets)
        sizes = ((name, size) for layer in self.layers for name, size in layer.items() if name in self.plain)
        return rank * int(sum(size for name, size in sizes if wanted(name)))


def shapes_of(graph: Graph, left: Mapping[str, Shape] | None = None) -> Shapes:
    """The sizes of a model from its coupled groups.

    Args:
        left: the shapes of a model that was cut after the graph was made; None where it was not.
    """
    parameters = {name: each.shape for name, each in graph.parameters.items()} if left is None else left
    layers: list[dict[str, float]] = [{} for _ in graph.layer_modules]
    plain = set[str]()
    for name, shape in parameters.items():
        about = graph.parameters.get(name)
        if about is None or about.layer is None or len(shape) < 2 or not about.macs_per_token:
            continue
        module = name.removesuffix(".weight")
        experts = prod(shape[:-2]) * about.macs_per_token  # of a stack, those that a token is sent to
        layers[about.layer][module] = sum(shape[-2:]) * experts
        plain |= {module} if about.module in PLAIN else set()
    units: dict[str, frozenset[str]] = {
        kind: frozenset(member.parameter for group in graph.of_kind(kind) for member in group.members)
        for kind in {group.kind for group in graph.groups}
    }
    vocabulary, hidden = ends(parameters, {n for n, p in graph.parameters.items() if p.layer is None})
    heads = max((attention.heads for attention in graph.attentions), default=0)
    return Shapes(
        parameters, tuple(layers), frozenset(plain), _readers(graph, parameters), hidden, vocabulary, heads,
        units, lambda targets: chosen(graph, targets),
    )  # fmt: skip


def _weight(module: str, parameters: Mapping[str, Shape]) -> str:
    return f"{module}.weight" if f"{module}.weight" in parameters else module


def ends(parameters: Mapping[str, Shape], outside: set[str]) -> tuple[int, int]:
    """Rows and columns of the largest matrix outside the layers: a token each, and the residual stream."""
    matrices = [shape for name, shape in parameters.items() if name in outside and len(shape) == 2]
    largest = max(matrices, key=prod, default=(0, 0))
    return max(largest), min(largest)


def _readers(graph: Graph, parameters: Mapping[str, Shape]) -> tuple[tuple[tuple[int, int], ...], ...]:
    """For each layer, inputs and outputs of the matrices that read units of it."""
    readers: list[dict[str, tuple[int, int]]] = [{} for _ in graph.layer_modules]
    for group in graph.of_kind(*_ATTENTION, "ffn_channel"):
        for member in group.members if group.layer is not None else ():
            shape = parameters.get(member.parameter, ())
            if member.role == "layer2" and len(shape) == 2 and group.layer is not None:
                readers[group.layer][member.parameter] = shape[member.dim], shape[1 - member.dim]
    return tuple(tuple(layer.values()) for layer in readers)


def chosen(graph: Graph, targets: str) -> Callable[[str], bool]:
    """Whether a module of the decoder layers is among LoRA's targets.

    Args:
        targets: `all`, or only those whose slices belong to `attention` units or lie within an attention
            block, to `ffn` units, or that make queries and values (`query_value`).
    """
    within = tuple(f"{attention.module}." for attention in graph.attentions)
    layers = tuple(f"{layer}." for layer in graph.layer_modules)
    kinds = {"attention": _ATTENTION, "ffn": _FFN}.get(targets, ())
    members = {member.parameter for group in graph.of_kind(*kinds) for member in group.members}
    if targets == "query_value":
        members = {name for attention in graph.attentions for name in (*attention.queries, *attention.values)}
    coupled = {name.rpartition(".")[0] for name in members}

    def wanted(name: str) -> bool:
        named = targets == "all" or name in coupled or (targets == "attention" and name.startswith(within))
        return named and name.startswith(layers)

    return wanted
