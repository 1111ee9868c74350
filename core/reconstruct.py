"""Refit what stays, without training: so that a pruned model computes what the dense one did.

The model is walked layer by layer, dense and pruned side by side: two sets of hidden states and the
sums of one module are all that is kept. Weights change in place, in their dense shapes, under the masks of
the plan; surgery cuts them afterwards, so masked = sliced holds for what was refitted too.

- `bias`: the mean of what goes, through the weights that read it, is added to the bias. Source: FLAP,
  arXiv:2312.11983, Section 3.3 (baseline bias compensation), on the dense model's inputs.
- `least_squares`: the matrix that reads what stays is fitted to what the dense layer adds to the residual
  stream *and* to what the layers before have left of an error in it. Source: adaptive estimation fusion,
  arXiv:2403.10799, Eq. 13, with a ridge around the weights that are there. Its guard discards weights
  that are out of range; unlike the paper's it does not end the refitting there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.capture import capture
from core.graph.records import Graph
from core.layerwise import layers_of, watching
from core.least_squares import Fit
from core.masks import masked, owner_of
from core.plan import PruningPlan, implied
from core.surgery import add_biases
from core.walk import Reader, Removed, Walk, dense_pass, of_layer, readers_of, writers_of

#: (parameter, dimension) -> mean of what is read along it, (size,).
Means = Mapping[tuple[str, int], Tensor]
_MEAN = "input_mean"
_KINDS = ("query_head", "kv_group", "ffn_channel")
#: Weights beyond so many times the largest that was there are out of range (the guard of Eq. 13).
_RANGE = 10.0


@dataclass
class Reconstruction:
    """What was refitted.

    Attributes:
        removed: the plan's units; `pre_pruning` may choose others, as many of each group.
        changed: parameters that are no longer the dense model's.
        fits: {"module", "error_before", "error_after", "ridge"} of each fit, in order.
        notes: what could not be done, and why.
    """

    removed: dict[str, tuple[int, ...]]
    changed: set[str] = field(default_factory=set)
    fits: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def reconstruct(
    model: PreTrainedModel,
    graph: Graph,
    plan: PruningPlan,
    windows: Tensor,
    *,
    how: str,
    batch_size: int = 4,
    means: Means | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Reconstruction:
    """Refit a dense model for a plan, in place.

    Args:
        windows: calibration token ids, (windows, length); special tokens do not count.
        how: `bias` or `least_squares`.
        means: from `input_means`, where several plans share them; else they are found on `windows`.
        on_progress: told (windows or layers done, windows or layers in all).

    Raises:
        NotPrunableError: the model's layers cannot be run one by one.
    """
    found = Reconstruction(dict(plan.removed), notes=_skipped(model, graph, plan.removed))
    if how == "bias" and means is None:
        means = input_means(model, graph, windows, batch_size=batch_size, on_progress=on_progress)
    add_biases(model, plan.biases)
    if how == "bias":
        assert means is not None, "they were found above"
        _shift_biases(model, graph, means, found)
        return found
    walk = Walk(model, graph, layers_of(model, graph, windows, batch_size), windows, batch_size)
    for layer in range(len(graph.layer_modules)):
        _refit_readers(walk, layer, found)
        if on_progress is not None:
            on_progress(layer + 1, len(graph.layer_modules))
    return found


@contextmanager
def reconstructed(
    model: PreTrainedModel,
    graph: Graph,
    plan: PruningPlan,
    windows: Tensor,
    *,
    how: str,
    means: Means | None = None,
) -> Iterator[Reconstruction]:
    """`reconstruct` for the length of a `with` block; the model is as it was afterwards."""
    places = {name for name, _ in model.named_parameters()}
    biases = {name.removesuffix("weight") + "bias" for name in _read(graph)}
    kept = {name: model.get_parameter(name).detach().clone() for name in (_read(graph) | biases) & places}
    try:
        yield reconstruct(model, graph, plan, windows, how=how, means=means)
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                model.get_parameter(name).copy_(value)
        for name in set(plan.biases) - places:
            owner, attribute = owner_of(model, name)
            setattr(owner, attribute, None)


def _read(graph: Graph) -> set[str]:
    """Matrices that read units within a layer."""
    groups = graph.of_kind(*_KINDS)
    return {member.parameter for group in groups for member in group.members if member.role == "layer2"}


def _skipped(model: PreTrainedModel, graph: Graph, removed: Removed) -> list[str]:
    """Which matrices read units that go and are no linear layers of their own."""
    stacks = {
        member.parameter
        for group in implied(graph, dict(removed))
        for member in graph.group(group).members
        if member.role == "layer2"
        and not isinstance(owner_of(model, member.parameter)[0], (nn.Linear, Conv1D))
    }
    return [
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
    """What `bias` needs to know of the dense model, for any plan: the mean of every input, in one pass."""
    there = tuple({group.kind for group in graph.groups} & set(_KINDS))
    seen = capture(
        model, graph, windows, needs={_MEAN}, batch_size=batch_size, kinds=there, on_progress=on_progress
    )
    return seen.values[_MEAN]


def _shift_biases(model: PreTrainedModel, graph: Graph, means: Means, found: Reconstruction) -> None:
    """FLAP: bias += W mean(x) over the channels that go, in the dense model."""
    for layer in range(len(graph.layer_modules)):
        for reader in readers_of(graph, model, found.removed, layer):
            mean = means[reader.weight, reader.dim][reader.gone].to(model.device).double()
            shift = mean @ reader.matrix()[reader.gone].double()
            reader.module.bias.data += shift.to(reader.module.bias.dtype)
            found.changed.add(f"{reader.name}.bias")


def _refit_readers(walk: Walk, layer: int, found: Reconstruction) -> None:
    """Eq. 13, one reader after the other in the order in which they run."""
    mine = readers_of(walk.graph, walk.model, found.removed, layer)
    writers = writers_of(walk, layer)
    after, outs, order = dense_pass(walk, layer, writers)
    readers = sorted((one for one in mine if one.module in outs), key=lambda one: order.index(one.module))
    found.notes += [
        f"{one.name} does not read every token once and cannot be refitted: left as it is"
        for one in mine
        if one.module not in outs
    ]
    if not readers and walk.pruned is walk.dense:
        walk.dense = walk.pruned = after
        return
    adds_up = _adds_up(walk.dense[0], after[0], [outs[module][0] for module in order])
    with masked(walk.model, walk.graph, of_layer(walk.graph, found.removed, layer)):
        for reader in readers:
            sums = walk.normal(len(reader.stay), reader.matrix().shape[1])
            before = order[: order.index(reader.module)]
            for batch, hidden in enumerate(walk.pruned):
                with watching(before) as seen:
                    inputs = walk.layers.until(reader.module, layer, batch, hidden)
                target = outs[reader.module][batch].view_as(hidden)
                if adds_up:  # what is missing in the residual stream so far
                    target = target + walk.dense[batch] - hidden
                    for module, _, out in seen:
                        target = target + (outs[module][batch] - out).view_as(target)
                sums.add(batch, inputs[..., reader.stay], target)
            start = reader.matrix()[reader.stay]
            best = sums.fit(start, biased=True)
            if _out_of_range(reader, best):
                # The paper ends here, which leaves the errors of all later layers and undoes the rest.
                found.notes.append(
                    f"{reader.name}: weights out of range, discarded; only its bias is refitted"
                )
                best = sums.shift(start)
            _write(reader, best, found)
        walk.pruned = [walk.layers.run(layer, batch, hidden) for batch, hidden in enumerate(walk.pruned)]
    walk.dense = after


def _adds_up(before: Tensor, after: Tensor, outs: list[Tensor]) -> bool:
    """Whether a layer adds what its writers return to the residual stream and nothing else."""
    added = before + sum((out.view_as(before) for out in outs), torch.zeros_like(before))
    return bool((added - after).norm() <= 1e-3 * (after - before).norm())


def _out_of_range(reader: Reader, found: Fit) -> bool:
    """The guard of Eq. 13."""
    largest = _RANGE * float(reader.matrix().abs().max())
    return not bool(torch.isfinite(found.weight).all()) or float(found.weight.abs().max()) > largest


def _write(reader: Reader, found: Fit, into: Reconstruction) -> None:
    """Put a fit into the model."""
    old = reader.matrix()
    old[reader.stay] = found.weight.to(old.dtype)
    into.changed.add(reader.weight)
    if found.bias is not None:
        reader.module.bias.data.copy_(found.bias)
        into.changed.add(f"{reader.name}.bias")
    if found.note:
        into.notes.append(f"{reader.name}: {found.note}")
    into.fits.append(
        {
            "module": reader.name,
            "error_before": found.before,
            "error_after": found.after,
            "ridge": found.ridge,
        }
    )
