"""Reconstruct a module, choose its units by what it has become, prune it, go on; nothing is refitted after.

For every depth-2 module that loses units, in the order in which they run, with X^ what it reads in the model
as pruned so far, (tokens, inputs):

1. level 1: W1 = (X^' X^)^-1 X^' Y1, where Y1 is what W1 returned in the dense model;
2. level 2: W2 = (X^2' X^2)^-1 X^2' Y2, where X^2 is what W2 reads now and Y2 what it returned there;
3. the units are scored by these weights and inputs, and as many go as in the plan.

Source: greedy output approximation, arXiv:2407.19126, Section 3.3 and Algorithms 2 to 4: in attention level 1
is queries, keys and values (Algorithm 3), in a gated feed-forward gate and up (Algorithm 4). Algorithm 2 has
tokens in columns in one factor and in rows in the other; with Y = X W of Section 3.1 it is as above. What the
paper leaves open is settled so:

- where X^' X^ is singular, of all solutions the one nearest to the present weights, which Algorithms 3 and 4
  hand over as `w`;
- a bias stays, and W is fitted to what the dense matrix returned less its bias;
- a module that reads what the dense one does is its own reconstruction;
- the windows that reconstruct are others than those that score (Section 4.1: 1,024 and 16).
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import replace

import torch
from torch import nn

from core.capture.moments import ModuleMoments
from core.recover.fitting import Reconstruction, Step, by_writer, unfit, write
from core.recover.least_squares import Fit
from core.recover.rescoring import Rescoring
from core.recover.walk import Reader, Walk, makers_for, makers_of, of_layer, readers_of, whole
from core.surgery.masks import masked


def pre_prune(walk: Walk, layer: int, record: Reconstruction, rescoring: Rescoring) -> None:
    """Reconstruct, score and prune the depth-2 modules of one layer; `record` gets the units."""
    planned = of_layer(walk.graph, record.removed, layer)
    step = Step(walk, layer, makers_of(walk, layer), to_stream=False)
    losing = readers_of(walk.graph, walk.model, planned, layer)
    as_dense = walk.pruned is walk.dense
    if not losing and as_dense:
        walk.dense = walk.pruned = step.after
        return
    record.notes += [unfit(reader.name) for reader in losing if reader.module not in step.order]
    groups_of, as_planned = by_writer(step, planned)
    as_dense = as_dense and not any(as_planned.values())
    with ExitStack() as masks:
        masks.enter_context(masked(walk.model, walk.graph, as_planned))
        for writer, groups in groups_of.items():
            if not any(planned[group.id] for group in groups):
                continue
            moments = rescoring.moments(walk.model, walk.graph, groups)
            if not as_dense:
                _level_1(step, writer, record)
            _level_2(step, writer, moments, record, fits=not as_dense)
            chosen = rescoring.choose_all(walk.model, walk.graph, groups, planned, moments)
            record.removed |= chosen
            masks.enter_context(masked(walk.model, walk.graph, chosen))
            as_dense = False
        step.leave()


def _level_1(step: Step, writer: nn.Module, record: Reconstruction) -> None:
    """Reconstruct the matrices of level 1 that make what a writer reads.

    T W1 with T = (X^' X^)^-1 X^' X is (X^' X^)^-1 X^' Y1: one solve for all matrices that read this input.
    """
    walk, own = step.walk, makers_for(step.walk, step.layer, writer)
    for reading in step.readings:
        makers = [maker for maker in reading.makers if maker in own]
        if not makers:
            continue
        size = reading.dense[0].shape[-1]
        sums = walk.normal(size, size)
        for batch, hidden in enumerate(walk.pruned[: walk.fitting]):
            inputs = walk.layers.until(makers[0], step.layer, batch, hidden)
            sums.add(batch, inputs.double(), reading.dense[batch].double())
        to_dense = sums.exact(torch.eye(size, device=walk.model.device))
        for maker in makers:
            reader = whole(walk.model, maker)
            _put(reader, replace(to_dense, weight=to_dense.weight @ reader.matrix().double()), record)


def _level_2(
    step: Step, writer: nn.Module, moments: ModuleMoments | None, record: Reconstruction, *, fits: bool
) -> None:
    """Reconstruct a module's second matrix; collect the criterion's statistics in the same pass."""
    reader = whole(step.walk.model, writer)
    sums = step.walk.normal(*reader.matrix().shape)
    own = reader.bias()
    bias = 0.0 if own is None else own.double()
    with moments.watch() if moments else nullcontext():
        for batch, inputs, target in step.inputs(writer, moments):
            if fits and batch < step.walk.fitting:
                sums.add(batch, inputs.double(), target.double() - bias)
    if fits:
        _put(reader, sums.exact(reader.matrix()), record)


def _put(reader: Reader, best: Fit, record: Reconstruction) -> None:
    """Put a reconstruction into the model, unless its precision cannot hold it."""
    if bool(torch.isfinite(best.weight.to(reader.matrix().dtype)).all()):
        write(reader, best, record)
    else:
        record.notes.append(f"{reader.name}: the reconstructed weights are not finite: left as it is")
