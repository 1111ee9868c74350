"""Find the coupled groups of any decoder-only model: record a pass, follow its channels, group them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from transformers import PretrainedConfig, PreTrainedModel

import core.graph.moving
import core.graph.products
import core.graph.reducing  # noqa: F401  (importing them registers their rules)
from core.errors import ModelError
from core.graph.blocks import add_blocks
from core.graph.classes import build, takes_more_than_text
from core.graph.edges import find_edges
from core.graph.layers import Walk, decoder_layers, no_layers, walk
from core.graph.places import tied_names
from core.graph.records import Graph, Group, Parameter
from core.graph.replicate import replicate
from core.graph.skipping import tried
from core.graph.trace import Ref, Tape, meta_copy, trace
from core.graph.units import GroupBuilder


def discover(
    model: PreTrainedModel,
    *,
    name: str | None = None,
    trace_length: int = 7,
    config_only: bool = False,
    twin: nn.Module | None = None,
) -> Graph:
    """Find the coupled groups of a model; its weights are neither read nor changed.

    Args:
        model: on any device, the meta device included.
        name: how to call it in the result; None takes what it was loaded from, or its family.
        trace_length: tokens per sequence of the recorded pass.
        config_only: whether it has no weights, which the result then says.
        twin: a copy of it on the meta device, where one was made already.

    Raises:
        ModelError: an encoder or a sequence-to-sequence model.
        NotPrunableError: the forward pass cannot be recorded; names the operation and the module.
    """
    name = name or model.name_or_path or str(model.config.model_type)
    return _discover(model, name, trace_length, config_only, twin if twin is not None else meta_copy(model))


def discover_config(config: PretrainedConfig, *, name: str) -> Graph:
    """Find the coupled groups of the model a config describes. Raises what `bare_model` and `discover` do."""
    return discover(bare_model(config, name), name=name, config_only=True)


def bare_model(config: PretrainedConfig, name: str) -> PreTrainedModel:
    """The model a config describes, without any weights.

    Raises:
        ModelError: no decoder-only language model can be built from the config.
    """
    _refuse_encoders(config, None)
    try:
        with torch.device("meta"):
            model: PreTrainedModel = build(config, attn_implementation="eager")
    except (ValueError, KeyError, AttributeError, TypeError, AssertionError) as error:
        raise ModelError(f"No decoder can be built from the config of '{name}': {error}") from error
    return model


def _discover(model: PreTrainedModel, name: str, length: int, config_only: bool, twin: nn.Module) -> Graph:
    start = time.perf_counter()
    _refuse_encoders(model.config, model)
    tape = trace(model, length=length, twin=twin)
    layers = decoder_layers(model, tape)
    if not layers:
        raise ModelError(no_layers(model, tape, name))
    result = walk(tape, layers)
    followed = GroupBuilder(result).run()
    add_blocks(result, followed)
    parts = replicate(result, followed)
    return Graph(
        model=name,
        family=str(model.config.model_type),
        config_only=config_only,
        seconds=time.perf_counter() - start,
        parameters=_parameters(model, tape, result),
        groups=tuple(_text_alone(model, tape, tried(twin, parts.groups))),
        attentions=tuple(parts.attentions),
        layer_modules=layers,
        edges=find_edges(result),
        not_prunable=tuple(parts.not_prunable),
        tied=tied_names(model),
    )


def _text_alone(model: PreTrainedModel, tape: Tape, groups: Iterable[Group]) -> Iterator[Group]:
    """The groups; those of the residual stream are refused where pictures or sound enter it.

    The pass that was recorded had text alone, so that nothing says how they do.
    """
    used = {
        value.id
        for node in tape.nodes
        for value in tree_leaves((node.args, node.kwargs))
        if isinstance(value, Ref)
    }
    unseen = [name for number, name in tape.parameters.items() if number not in used]
    enters = takes_more_than_text(model.config) and bool(unseen)
    for group in groups:
        if enters and group.kind == "residual_channel" and group.prunable:
            why = (
                "pictures or sound enter here through parts that a pass over text does not run, so they "
                f"cannot be followed (first {unseen[0]})"
            )
            yield replace(group, prunable=False, reason=why)
        else:
            yield group


def _refuse_encoders(config: PretrainedConfig, model: nn.Module | None) -> None:
    what = type(model).__name__ if model is not None else config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{what} is a sequence-to-sequence model; only decoder-only language models are supported."
        )
    if getattr(config, "is_decoder", None) is False and hasattr(config, "add_cross_attention"):
        raise ModelError(f"{what} is an encoder; only decoder-only language models are supported.")


def _parameters(model: nn.Module, tape: Tape, result: Walk) -> dict[str, Parameter]:
    owners = dict(model.named_modules())
    parameters = {}
    for name, parameter in model.named_parameters():
        layer = result.layer_of(name)
        macs = result.flow.macs.get(name)
        if macs is None and layer is not None and layer in result.twins:
            macs = result.flow.macs.get(result.moved(name, result.twins[layer]))
        owner = type(owners[name.rpartition(".")[0]]).__name__
        parameters[name] = Parameter(tuple(parameter.shape), macs or 0.0, owner, layer)
    return parameters
