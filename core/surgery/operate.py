"""Apply a plan for good: slice every parameter, and let `core.surgery.rewrite` bring the modules in line.

The result is checked, not hoped for: on a short input every layer must give what it gave under masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.graph.places import owner_of
from core.graph.records import Graph
from core.plan.blocks import blocks_gone, without_blocks
from core.plan.heads import heads_left
from core.plan.records import Cuts, PruningPlan, bias_cuts, check_plan, cuts, implied
from core.surgery.agreement import OnChecked, check, refer
from core.surgery.blocks import take_out
from core.surgery.masks import Removed, masked
from core.surgery.modeling_pruned import PerHead
from core.surgery.norms import is_norm, shrink_plain, shrink_rms, subtracts_mean
from core.surgery.rehearsal import Place, per_head_arguments, rehearse
from core.surgery.rewrite import (
    fit_attention,
    fit_feed_forward,
    fit_shapes,
    fit_stream,
)


def cut(model: PreTrainedModel, graph: Graph, plan: PruningPlan) -> PreTrainedModel:
    """Remove the units of a plan from a model for good, in place, and return it, smaller.

    What the sliced model gives on a short input is compared with what it gave under masks. `model.config`
    still describes the dense model; `save` writes what loads the smaller one.

    Raises:
        NotPrunableError: as in `operate`.
    """
    return operate(model, graph, plan.removed, plan.biases)


def operate(
    model: PreTrainedModel,
    graph: Graph,
    removed: Removed,
    biases: Sequence[str] = (),
    *,
    on_checked: OnChecked | None = None,
    checked: bool = True,
) -> PreTrainedModel:
    """Remove units from a model, in place.

    Works on the meta device too, but there is nothing to check there.

    Args:
        removed: group id -> units that go; a key-value unit goes with the last of its query heads.
        biases: parameters that the plan adds to linear layers which lack them; zero at first.
        on_checked: told how close each layer came to what it gave under masks.
        checked: False for a model whose answers nobody will read.

    Returns:
        The same model, smaller. `model.config` still describes the dense one.

    Raises:
        NotPrunableError: the plan does not fit, or the sliced model does not do what the masked one
            does; names the module. The model is of no use then: load it again.
    """
    check_plan(graph, dict(removed))
    add_biases(model, biases)
    gone, full = blocks_gone(graph, removed), implied(graph, dict(removed))
    if not full and not gone:
        return model
    if model.device.type == "meta" or not checked:
        first, reference = rehearse(model, graph, when="with these units masked"), None
    else:
        with masked(model, graph, removed):
            scaled = scaled_norms(model, graph, full)
            reference = refer(model, graph, when="with these units masked", rescaled=scaled)
        first = reference.first
    places = per_head_arguments(model, graph, first)
    take_out(model, gone)
    graph, removed = without_blocks(graph, removed)
    _slice(model, cuts(graph, dict(removed)) | bias_cuts(graph, dict(removed), biases))
    _fit(model, graph, full, places)
    if reference is not None:
        check(model, graph, reference, when="with these units cut", full=full, on_checked=on_checked)
    return model


def scaled_norms(model: nn.Module, graph: Graph, full: Mapping[str, tuple[int, ...]]) -> set[str]:
    """The norms with a weight that run across the units that go."""
    parameters = {member.parameter for group_id in full for member in graph.group(group_id).members}
    owners = {name.rpartition(".")[0] for name in parameters}
    return {name for name in owners if is_norm(model.get_submodule(name))}


def add_biases(model: nn.Module, biases: Sequence[str]) -> None:
    """Give linear layers a bias of zeros, by the parameter's name, where they have none."""
    for name in biases:
        owner, attribute = owner_of(model, name)
        if getattr(owner, attribute) is None:
            weight = owner.get_parameter("weight")
            size = weight.shape[1 if isinstance(owner, Conv1D) else 0]
            setattr(owner, attribute, nn.Parameter(weight.new_zeros(size)))


def slice_parameters(model: nn.Module, graph: Graph, plan: PruningPlan) -> None:
    """Leave of every parameter what stays of it; what modules remember of their sizes is not looked after."""
    take_out(model, blocks_gone(graph, plan.removed))
    _slice(model, cuts(graph, dict(plan.removed)) | bias_cuts(graph, dict(plan.removed), plan.biases))


def _slice(model: nn.Module, gone: Cuts) -> None:
    """Replace every touched parameter, in every module that uses it, by what is left of it."""
    users: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                users.setdefault(id(parameter), []).append((module, key))
    for name, dims in gone.items():
        owner, attribute = owner_of(model, name)
        old = owner.get_parameter(attribute)
        new = nn.Parameter(_left(old, dims), requires_grad=old.requires_grad)
        averaged = attribute == "weight" and is_norm(owner) and not subtracts_mean(owner)
        for user, key in users[id(old)]:
            user._parameters[key] = new
            fit_shapes(user, key, old.shape)
        if averaged:
            shrink_rms(owner, old.shape[0], new.shape[0])


def _left(parameter: nn.Parameter, dims: dict[int, NDArray[np.int64]]) -> Tensor:
    """What is left of a parameter without these indices."""
    left = parameter.detach()
    for dim, indices in dims.items():
        if indices.ndim == 1:
            left = _without(left, dim, indices)
        else:  # a stack of experts, each losing channels of its own
            left = torch.stack(
                [_without(expert, dim - 1, gone) for expert, gone in zip(left, indices, strict=True)]
            )
    return left


def _without(values: Tensor, dim: int, indices: NDArray[np.int64]) -> Tensor:
    keep = np.setdiff1d(np.arange(values.shape[dim]), indices)
    return values.index_select(dim, torch.from_numpy(keep).to(values.device))


def _fit(
    model: nn.Module, graph: Graph, full: Mapping[str, tuple[int, ...]], places: Mapping[str, list[Place]]
) -> None:
    """Rewrite the sizes that modules keep for themselves."""
    for group_id, units in full.items():
        group = graph.group(group_id)
        if group.kind == "ffn_channel":
            fit_feed_forward(model, group, len(units))
        elif group.kind == "residual_channel":
            fit_stream(model, graph, group, len(units))
        for name in group.plain_norms:
            shrink_plain(model.get_submodule(name), group.units, group.units - len(units))
    for attention in graph.attentions:
        heads = heads_left(graph, attention, full)
        if heads is not None:
            fit_attention(model, graph, attention, heads)
            if arguments := places.get(attention.module):
                module = model.get_submodule(attention.module)
                hook = PerHead(arguments, attention.heads, heads.query)
                module.register_forward_pre_hook(hook, with_kwargs=True)
