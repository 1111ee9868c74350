"""Reconstruct a module before pruning it, score it again on what it now reads, prune it, refit it, go on.

For every depth-2 module, in the order in which they run, on the pruned model's inputs:

1. the matrices of level 1 are fitted, so that they return what the dense ones did;
2. the matrix of level 2 is fitted, so that the module does, with all its units, and makes up for what the
   residual stream lacks so far;
3. the units are scored again, and as many go as in the plan;
4. the matrix of level 2 is fitted again for the units that stay, from the same sums.

This goes beyond greedy output approximation, arXiv:2407.19126, whose Algorithms 2 to 4 are
`core.recover.pre_pruning`: ours are the error of the stream in the target, a ridge around the present
weights, biases, and the fourth step, which costs one more solve and no pass.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext

import torch
from torch import nn

from core.capture.moments import ModuleMoments
from core.graph.records import Group
from core.recover.fitting import Reconstruction, Step, by_writer, guarded, in_range, unfit, write
from core.recover.least_squares import Fit
from core.recover.rescoring import Rescoring
from core.recover.walk import Normals, Walk, makers_of, of_layer, readers_of, whole
from core.surgery.masks import masked


def pre_prune_and_refit(walk: Walk, layer: int, record: Reconstruction, rescoring: Rescoring) -> None:
    """Reconstruct, score, prune and refit the depth-2 modules of one layer; `record` gets the units."""
    planned = of_layer(walk.graph, record.removed, layer)
    step = Step(walk, layer, makers_of(walk, layer))
    losing = readers_of(walk.graph, walk.model, planned, layer)
    if not losing and walk.pruned is walk.dense:
        walk.dense = walk.pruned = step.after
        return
    record.notes += [unfit(reader.name) for reader in losing if reader.module not in step.order]
    groups_of, as_planned = by_writer(step, planned)
    with ExitStack() as masks:
        masks.enter_context(masked(walk.model, walk.graph, as_planned))
        for writer, groups in groups_of.items():
            chosen = _module(step, writer, groups, record, rescoring)
            masks.enter_context(masked(walk.model, walk.graph, chosen))
        step.leave()


def _module(
    step: Step, writer: nn.Module, groups: list[Group], record: Reconstruction, rescoring: Rescoring
) -> dict[str, tuple[int, ...]]:
    """Reconstruct and prune one depth-2 module; return the units that go."""
    walk, first = step.walk, step.walk.pruned is step.walk.dense and writer is step.order[0]
    if not first:  # the first module of all reads what the dense one does
        _level_1(step, writer, record)
    moments = rescoring.moments(walk.model, walk.graph, groups)
    sums = _level_2(step, writer, moments)
    if not first:
        full = whole(walk.model, writer)
        write(full, guarded(full, sums, record, biased=writer.bias is not None), record)
    chosen = rescoring.choose_all(walk.model, walk.graph, groups, record.removed, moments)
    record.removed |= chosen
    for reader in readers_of(walk.graph, walk.model, chosen, step.layer):
        write(reader, guarded(reader, sums.part(reader.stay), record), record)
    return chosen


def _level_1(step: Step, writer: nn.Module, record: Reconstruction) -> None:
    """Fit W1 on the pruned input to what the dense W1 returned.

    T W1, with T the ridge regression of the dense input on the pruned one, is the regression of the dense
    outputs; it takes one solve for all matrices that read this input.
    """
    walk = step.walk
    for reading in step.readings:
        if reading.writers != step.order.index(writer):
            continue
        size = reading.dense[0].shape[-1]
        sums = walk.normal(size, size)
        for batch, hidden in enumerate(walk.pruned):
            inputs = walk.layers.until(reading.makers[0], step.layer, batch, hidden)
            sums.add(batch, inputs, reading.dense[batch])
        biased = all(module.bias is not None for module in reading.makers)
        to_dense = sums.fit(torch.eye(size, device=walk.model.device), biased=biased)
        for maker in reading.makers:
            reader = whole(walk.model, maker)
            dense = reader.matrix().double()
            own = reader.bias()
            bias = None if own is None or to_dense.bias is None else own.double() + to_dense.bias @ dense
            best = Fit(to_dense.weight @ dense, bias, to_dense.ridge, to_dense.before, to_dense.after)
            if in_range(reader, best):
                write(reader, best, record)
            else:
                record.notes.append(f"{reader.name}: weights out of range, discarded")


def _level_2(step: Step, writer: nn.Module, moments: ModuleMoments | None) -> Normals:
    """Sum over what a module's second matrix reads; collect the criterion's statistics in the same pass."""
    matrix = whole(step.walk.model, writer).matrix()
    sums = step.walk.normal(*matrix.shape)
    with moments.watch() if moments else nullcontext():
        for batch, inputs, target in step.inputs(writer, moments):
            sums.add(batch, inputs, target)
    return sums
