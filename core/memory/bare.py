"""A model's sizes where its coupled groups are not at hand: from its config, in a second."""

from __future__ import annotations

import re
from math import prod

from torch import nn
from transformers import PretrainedConfig

from core.graph.discover import bare_model
from core.memory.shapes import PLAIN, Shape, Shapes, ends, shapes_of
from core.models.load import load_config
from core.models.sources import groups_left, resolve
from core.spec.model import ModelSpec

#: The first number in a parameter's name is that of its layer.
_LAYER = re.compile(r"\.(\d+)\.")


def sizes_of(spec: ModelSpec) -> Shapes:
    """The sizes of a model; the weights are not read.

    Raises:
        ModelError: there is no such model. ArtifactError: the plan of a pruned one is damaged.
    """
    source = resolve(spec.source)
    if source.kind == "pruned":
        return shapes_of(groups_left(source))
    config = load_config(spec.source, spec.trust_remote_code)
    return _of(bare_model(config, source.name), config.get_text_config())


def _of(model: nn.Module, config: PretrainedConfig) -> Shapes:
    """A token goes through every matrix of a layer, and through two of a stack, as far as is known here.

    All of them are taken to hold units, and to be trained.
    """
    owners = dict(model.named_modules())
    parameters: dict[str, Shape] = {name: tuple(each.shape) for name, each in model.named_parameters()}
    layers: list[dict[str, float]] = [{} for _ in range(int(config.num_hidden_layers))]
    readers: list[list[tuple[int, int]]] = [[] for _ in layers]
    inside, plain = set[str](), set[str]()
    for name, shape in parameters.items():
        number = _LAYER.search(name)
        if number is None or int(number[1]) >= len(layers):
            continue
        inside.add(name)
        if len(shape) > 1:
            module = name.removesuffix(".weight")
            layers[int(number[1])][module] = sum(shape[-2:]) * min(2, prod(shape[:-2]))
            owner = owners.get(module)
            plain |= {module} if owner is not None and type(owner).__name__ in PLAIN else set()
            readers[int(number[1])] += [(max(shape), min(shape))] if len(shape) == 2 else []
    vocabulary, hidden = ends(parameters, set(parameters) - inside)
    units = {kind: frozenset(inside) for kind in ("ffn_channel", "query_head", "kv_group")}
    units["residual_channel"] = frozenset(parameters)
    heads = int(getattr(config, "num_attention_heads", 0) or 0)
    return Shapes(
        parameters, tuple(layers), frozenset(plain), tuple(map(tuple, readers)), hidden, vocabulary, heads,
        units, lambda targets: lambda name: True,
    )  # fmt: skip
