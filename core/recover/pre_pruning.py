"""Reconstruct a module before it is pruned, score again on what it now sees, prune, go on.

For every depth-2 module, in the order in which they run, on the pruned model's inputs:

1. the matrices of level 1 are fitted, so that they give what the dense ones gave;
2. the matrix of level 2 is fitted, so that the module does, its units still whole;
3. its units are scored again, and as many go as the plan takes of them;
4. the matrix of level 2 is fitted once more for those that stay, out of the same sums.

Source: greedy output approximation, arXiv:2407.19126, Section 3.3 and Algorithms 2 to 4, with a ridge around
the weights that are there. The fourth step is ours: it costs one more solve and no pass.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext

import torch
from torch import nn

from core.capture.moments import ModuleMoments
from core.graph.records import Group
from core.recover.fitting import Reconstruction, Step, guarded, in_range, unfit, write
from core.recover.least_squares import Fit
from core.recover.rescoring import Rescoring
from core.recover.walk import Normals, Walk, makers_of, modules_of, of_layer, readers_of, whole
from core.surgery.masks import masked


def pre_prune(walk: Walk, layer: int, found: Reconstruction, rescoring: Rescoring) -> None:
    """Reconstruct, score, prune and refit the depth-2 modules of one layer; `found` gets the units chosen."""
    planned = of_layer(walk.graph, found.removed, layer)
    step = Step(walk, layer, makers_of(walk, layer))
    losing = readers_of(walk.graph, walk.model, planned, layer)
    if not losing and walk.pruned is walk.dense:
        walk.dense = walk.pruned = step.after
        return
    found.notes += [unfit(one.name) for one in losing if one.module not in step.order]
    chosen_at = {
        writer: [walk.graph.group(group) for group in planned if writer in modules_of(walk, group, "layer2")]
        for writer in step.order
    }
    anew = {group.id for groups in chosen_at.values() for group in groups}
    as_planned = {group: units for group, units in planned.items() if group not in anew}
    with ExitStack() as masks:
        masks.enter_context(masked(walk.model, walk.graph, as_planned))
        for writer, groups in chosen_at.items():
            chosen = _module(step, writer, groups, found, rescoring)
            masks.enter_context(masked(walk.model, walk.graph, chosen))
        step.leave()


def _module(
    step: Step, writer: nn.Module, groups: list[Group], found: Reconstruction, rescoring: Rescoring
) -> dict[str, tuple[int, ...]]:
    """One depth-2 module: the units that go."""
    walk, first = step.walk, step.walk.pruned is step.walk.dense and writer is step.order[0]
    if not first:  # the very first module sees what the dense one does
        _level_1(step, writer, found)
    moments = rescoring.moments(walk.model, walk.graph, groups)
    sums = _level_2(step, writer, moments)
    if not first:
        full = whole(walk.model, writer)
        write(full, guarded(full, sums, found, biased=writer.bias is not None), found)
    chosen = {
        group.id: rescoring.choose(walk.model, walk.graph, group, found.removed[group.id], moments)
        for group in groups
    }
    found.removed |= chosen
    for reader in readers_of(walk.graph, walk.model, chosen, step.layer):
        write(reader, guarded(reader, sums.part(reader.stay), found), found)
    return chosen


def _level_1(step: Step, writer: nn.Module, found: Reconstruction) -> None:
    """W1 on the pruned input, against what the dense W1 gave.

    T W1, with T the ridge regression of the dense input on the pruned one, is the regression of the dense
    outputs, and takes one solve for all the matrices that read this input.
    """
    walk = step.walk
    for reading in step.readings:
        if reading.writers != step.order.index(writer):
            continue
        size = reading.dense[0].shape[-1]
        sums = walk.normal(size, size)
        for batch, hidden in enumerate(walk.pruned):
            read = walk.layers.until(reading.makers[0], step.layer, batch, hidden)
            sums.add(batch, read, reading.dense[batch])
        biased = all(module.bias is not None for module in reading.makers)
        carried = sums.fit(torch.eye(size, device=walk.model.device), biased=biased)
        for maker in reading.makers:
            own = whole(walk.model, maker)
            dense = own.matrix().double()
            bias = None if carried.bias is None else maker.bias.double() + carried.bias @ dense
            best = Fit(carried.weight @ dense, bias, carried.ridge, carried.before, carried.after)
            if in_range(own, best):
                write(own, best, found)
            else:
                found.notes.append(f"{own.name}: weights out of range, discarded")


def _level_2(step: Step, writer: nn.Module, moments: ModuleMoments | None) -> Normals:
    """Sums over all that a module's second matrix reads, and what its criterion asks for on the way."""
    matrix = whole(step.walk.model, writer).matrix()
    sums = step.walk.normal(*matrix.shape)
    with moments.watch() if moments else nullcontext():
        for batch, inputs, target in step.inputs(writer, moments):
            sums.add(batch, inputs, target)
    return sums
