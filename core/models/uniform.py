"""A config for the pruned model itself, if its layers are all alike.

With it the saved folder is an ordinary model, which any tool reads. A trial decides whether it is one:
the same weights in a model built from the reduced config must give the same logits. Whole layers may be gone:
those that stay are numbered anew.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from transformers import PretrainedConfig, PreTrainedModel

from core.devices.lending import spread_of, stand_like
from core.errors import PruneError
from core.graph.classes import takes_more_than_text
from core.graph.places import tied_names
from core.graph.records import Graph
from core.models.empty import empty_model, fill
from core.plan.blocks import blocks_gone, without_blocks
from core.plan.heads import heads_left
from core.plan.records import PruningPlan, implied
from core.surgery.agreement import check, refer

T = TypeVar("T")

#: Lists in a config that may be as long as a model is deep, and say nothing of its layers.
_NO_LAYERS = ("token_id", "token_ids", "architectures")


def uniform_config(model: PreTrainedModel, graph: Graph, plan: PruningPlan) -> PretrainedConfig | None:
    """The reduced config, or None if the layers differ or no stock model computes the same."""
    changes = _changes(model.config.get_text_config(), graph, plan)
    if changes is None or model.device.type == "meta":
        return None
    if "num_hidden_layers" in changes and takes_more_than_text(model.config):
        return None  # pictures may enter at layers by their number, which the trial over text does not see
    config = copy.deepcopy(model.config)
    try:
        for name, value in changes.items():
            setattr(config.get_text_config(), name, value)
        twin = empty_model(config, type(model))
        aliases, places = tied_names(model), numbered_anew(graph, plan)
        weights = {name: value for name, value in model.state_dict().items() if name not in aliases}
        fill(twin, renamed(weights, places))
        spread = spread_of(model)
        stand_like(twin, model, spread and replace(spread, places=renamed(spread.places, places)))
        own, its = (_of_layers(graph, layers) for layers in (places.keys(), places.values()))
        when = "in a stock model"
        check(twin, its, refer(model, own, when=when), when=when)
    except (PruneError, ValueError, TypeError, RuntimeError, AttributeError):
        return None  # this family derives one size from another; the plan is replayed instead
    return config


def numbered_anew(graph: Graph, plan: PruningPlan) -> dict[str, str]:
    """The module of every layer that stays -> that of the layer which it is in a model of those alone."""
    left = _layers_left(graph, plan)
    return {graph.layer_modules[number]: graph.layer_modules[place] for place, number in enumerate(left)}


def renamed(values: Mapping[str, T], modules: Mapping[str, str]) -> dict[str, T]:
    """The same values of parameters, those inside a module that has another name under that name."""

    def name_of(name: str) -> str:
        inside = next((module for module in modules if name.startswith(f"{module}.")), None)
        return name if inside is None else modules[inside] + name.removeprefix(inside)

    return {name_of(name): value for name, value in values.items()}


def _layers_left(graph: Graph, plan: PruningPlan) -> list[int]:
    gone = {group.layer for group in blocks_gone(graph, plan.removed) if group.kind == "layer"}
    return [number for number in range(len(graph.layer_modules)) if number not in gone]


def _of_layers(graph: Graph, modules: Iterable[str]) -> Graph:
    """The graph as far as comparing goes: with these layers."""
    return replace(graph, layer_modules=tuple(modules), attentions=())


def _changes(config: PretrainedConfig, graph: Graph, plan: PruningPlan) -> dict[str, Any] | None:
    """Config fields and their new values, or None where no config can say it."""
    if any(group.kind != "layer" for group in blocks_gone(graph, plan.removed)):
        return None
    left, removed = without_blocks(graph, plan.removed)
    sizes = _sizes(config, left, implied(left, removed))
    return None if sizes is None else {**_depth(config, graph, plan), **sizes}


def _depth(config: PretrainedConfig, graph: Graph, plan: PruningPlan) -> dict[str, Any]:
    """How many layers there are, and what is told of each of them; nothing where all stay."""
    left, depth = _layers_left(graph, plan), len(graph.layer_modules)
    if len(left) == depth:
        return {}
    shorter = {
        name: [value[number] for number in left]
        for name, value in config.to_dict().items()
        if isinstance(value, list) and len(value) == depth and not name.endswith(_NO_LAYERS)
    }
    return {**shorter, "num_hidden_layers": len(left)}


def _sizes(
    config: PretrainedConfig, graph: Graph, full: Mapping[str, tuple[int, ...]]
) -> dict[str, int] | None:
    """Config fields and their new sizes, or None where one number cannot say it."""
    if full.get("residual_channel"):
        return None  # norms were rescaled, which a config cannot say
    heads, key_values, inner = set(), set(), set()
    for attention in graph.attentions:
        survivors = heads_left(graph, attention, full)
        heads.add(len(survivors.query) if survivors else attention.heads)
        key_values.add(len(survivors.key_value) if survivors else attention.kv_heads)
        if survivors is not None and not survivors.uniform:
            return None
    for group in graph.of_kind("ffn_channel"):
        inner.add((group.units, group.units - len(full.get(group.id, ()))))
    if max(len(heads), len(key_values), len(inner)) > 1 or not graph.attentions:
        return None
    changes = {"num_attention_heads": heads.pop(), "num_key_value_heads": key_values.pop()}
    changes = {name: value for name, value in changes.items() if hasattr(config, name)}
    # Families without such a field may still read one; the trial says whether they do.
    changes["head_dim"] = graph.attentions[0].head_dim
    for dense, now in inner:
        changes |= {name: now for name in _inner_names(config, dense)}
    return changes


def _inner_names(config: PretrainedConfig, dense: int) -> list[str]:
    """Config fields with the FFN's width, which families call by several names."""
    values = config.to_dict()
    return [
        name
        for name, value in values.items()
        if value == dense and any(p in name for p in ("inner", "ffn", "inter"))
    ]
