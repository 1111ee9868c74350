"""Refit what stays, without training, so that a pruned model computes what the dense one did.

A walk goes layer by layer through the dense and the pruned model: two sets of hidden states and the sums of
one module are all it needs in memory. Weights change in place, in their dense shapes, under the masks of
the plan; surgery cuts them afterwards, so masked = sliced holds for refitted weights too.

- `bias`: the mean of what goes, times the weights that read it, is added to the bias. Source: FLAP,
  arXiv:2312.11983, Section 3.3 (baseline bias compensation), on the dense model's inputs.
- `least_squares`: the matrix that reads what stays is fitted to what the dense layer adds to the residual
  stream *and* to the error that the layers before have left in it. Source: adaptive estimation fusion,
  arXiv:2403.10799, Eq. 13, with a ridge around the present weights. Its guard discards weights that are
  out of range; unlike the paper's, it does not end the refitting there.
- `pre_pruning`: each module is reconstructed on the pruned model's inputs, scored again and only then pruned.
  Source: greedy output approximation, arXiv:2407.19126, Algorithms 2 to 4, see `core.recover.pre_pruning`.
- `pre_pruning_refit`: with a ridge, biases and the stream's error in the target, and what stays is fitted
  once more. Ours, see `core.recover.pre_pruning_refit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.capture.statistics import capture
from core.graph.places import owner_of
from core.graph.records import Graph
from core.plan.records import PruningPlan, implied
from core.recover.fitting import Reconstruction, refit_readers
from core.recover.pre_pruning import pre_prune
from core.recover.pre_pruning_refit import pre_prune_and_refit
from core.recover.rescoring import Rescoring
from core.recover.walk import KINDS, Walk, readers_of
from core.spec.choices import RECHOOSING
from core.surgery.masks import Removed
from core.surgery.operate import add_biases

#: (parameter, dimension) -> mean of what is read along it, (size,).
Means = Mapping[tuple[str, int], Tensor]
_MEAN = "input_mean"
_THROUGH = "hidden channels run through every layer, and what reads them is not refitted for those that go"


def reconstruct(
    model: PreTrainedModel,
    graph: Graph,
    plan: PruningPlan,
    windows: Tensor,
    *,
    how: str,
    batch_size: int = 4,
    rescoring: Rescoring | None = None,
    recovery: Tensor | None = None,
    means: Means | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Reconstruction:
    """Refit a dense model for a plan, in place.

    Args:
        windows: calibration token ids, (windows, length); special tokens do not count.
        how: `bias`, `least_squares`, `pre_pruning` or `pre_pruning_refit`.
        rescoring: how pre-pruning chooses units again; None takes the plan's criterion as it is.
        recovery: windows that `pre_pruning` reconstructs on, while `windows` score; None takes those.
        means: from `input_means`, where several plans share them; None measures them on `windows`.
        on_progress: called with (windows or layers done, windows or layers in all).

    Raises:
        NotPrunableError: the model's layers cannot be run one by one.
    """
    record = Reconstruction(dict(plan.removed), notes=_skipped(model, graph, plan.removed))
    if how == "bias":
        if means is None:
            means = input_means(model, graph, windows, batch_size=batch_size, on_progress=on_progress)
        add_biases(model, plan.biases)
        _shift_biases(model, graph, means, record)
        return record
    add_biases(model, plan.biases)
    rescoring = rescoring or Rescoring(plan.method, scope=plan.scope)
    if how in RECHOOSING and not rescoring.possible:
        record.notes.append(f"{plan.method} cannot score one module by what it reads: the plan's units go")
    if how == "pre_pruning":
        fit = windows if recovery is None else recovery
        walk = Walk.told_apart(model, graph, fit, windows, batch_size)
    else:
        walk = Walk.start(model, graph, windows, batch_size)
    for layer in range(len(graph.layer_modules)):
        if how == "pre_pruning":
            pre_prune(walk, layer, record, rescoring)
        elif how == "pre_pruning_refit":
            pre_prune_and_refit(walk, layer, record, rescoring)
        else:
            refit_readers(walk, layer, record)
        if on_progress is not None:
            on_progress(layer + 1, len(graph.layer_modules))
    return record


@contextmanager
def reconstructed(
    model: PreTrainedModel,
    graph: Graph,
    plan: PruningPlan,
    windows: Tensor,
    *,
    how: str,
    rescoring: Rescoring | None = None,
    recovery: Tensor | None = None,
    means: Means | None = None,
) -> Iterator[Reconstruction]:
    """`reconstruct` for the length of a `with` block, which leaves the model as it was."""
    names = {name for name, _ in model.named_parameters()}
    matrices = _matrices(graph, {"layer1", "layer2"} if how in RECHOOSING else {"layer2"})
    matrices |= {name.removesuffix("weight") + "bias" for name in matrices}
    before = {name: model.get_parameter(name).detach().clone() for name in matrices & names}
    try:
        yield reconstruct(
            model, graph, plan, windows, how=how, rescoring=rescoring, recovery=recovery, means=means
        )
    finally:
        with torch.no_grad():
            for name, value in before.items():
                model.get_parameter(name).copy_(value)
        for name in set(plan.biases) - names:
            owner, attribute = owner_of(model, name)
            setattr(owner, attribute, None)


def _matrices(graph: Graph, roles: set[str]) -> set[str]:
    """The matrices that make or read units within a layer."""
    groups = graph.of_kind(*KINDS)
    return {member.parameter for group in groups for member in group.members if member.role in roles}


def _skipped(model: PreTrainedModel, graph: Graph, removed: Removed) -> list[str]:
    """Notes on what reads units that go and is not refitted: more than a layer, or a stack of matrices."""
    stacks = {
        member.parameter
        for group in implied(graph, dict(removed))
        for member in graph.group(group).members
        if member.role == "layer2"
        and not isinstance(owner_of(model, member.parameter)[0], (nn.Linear, Conv1D))
    }
    through = any(units and graph.group(group).kind not in KINDS for group, units in removed.items())
    return [_THROUGH] * through + [
        f"{name} is a stack of matrices, which cannot be refitted: left as it is" for name in sorted(stacks)
    ]


def input_means(
    model: PreTrainedModel,
    graph: Graph,
    windows: Tensor,
    *,
    batch_size: int = 4,
    on_progress: Callable[[int, int], None] | None = None,
) -> Means:
    """The mean of every input in the dense model, from one pass: all that `bias` needs, for any plan."""
    kinds = tuple({group.kind for group in graph.groups} & set(KINDS))
    statistics = capture(
        model, graph, windows, needs={_MEAN}, batch_size=batch_size, kinds=kinds, on_progress=on_progress
    )
    return statistics.values[_MEAN]


def _shift_biases(model: PreTrainedModel, graph: Graph, means: Means, record: Reconstruction) -> None:
    """Compensate as FLAP does: bias += W mean(x) over the channels that go, in the dense model."""
    for layer in range(len(graph.layer_modules)):
        for reader in readers_of(graph, model, record.removed, layer):
            mean = means[reader.weight, reader.dim][reader.gone].to(model.device).double()
            shift = mean @ reader.matrix()[reader.gone].double()
            reader.module.bias.data += shift.to(reader.module.bias)
            record.changed.add(f"{reader.name}.bias")
