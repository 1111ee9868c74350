"""Refit one decoder layer on the pruned model's inputs: targets, fits, their guard, and what leaves it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from core.capture.moments import ModuleMoments
from core.graph.records import Group
from core.recover.layers import watching
from core.recover.least_squares import Fit
from core.recover.walk import (
    Normals,
    Reader,
    Walk,
    dense_pass,
    modules_of,
    of_layer,
    readers_of,
    writers_of,
)
from core.surgery.masks import Removed, masked

#: Weights beyond this many times the largest one before are out of range (the guard of Eq. 13).
_RANGE = 10.0
#: Allowed rounding of a sum, in units of the precision's smallest step.
_ROUNDING = 4.0


@dataclass
class Reconstruction:
    """The record of a refitting.

    Attributes:
        removed: group id -> the units that go; pre-pruning may choose others than the plan.
        changed: the parameters that differ from the dense model's.
        fits: {"module", "error_before", "error_after", "ridge"} of each fit, in order.
        notes: what could not be done, and why.
    """

    removed: dict[str, tuple[int, ...]]
    changed: set[str] = field(default_factory=set)
    fits: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def wrote(self, module: str, names: Sequence[str], fit: Fit) -> None:
        """Record a fit and the parameters that it changed."""
        self.changed.update(names)
        if fit.note:
            self.notes.append(f"{module}: {fit.note}")
        self.fits.append(
            {"module": module, "error_before": fit.before, "error_after": fit.after, "ridge": fit.ridge}
        )


class Step:
    """One layer at work: what the dense layer did, and how far the pruned one has come.

    Attributes:
        after: what left the dense layer, batch by batch, (batch, length, hidden).
        outs: writer -> what it returned in the dense layer, batch by batch.
        order: the writers that see every token once, in the order in which they run.
        readings: what `makers` read in the dense layer.
        adds_up: whether the layer adds what its writers return to the residual stream, and nothing else.
        to_stream: whether a writer should return what the residual stream lacks so far, too.
    """

    def __init__(
        self, walk: Walk, layer: int, makers: Sequence[nn.Module] = (), *, to_stream: bool = True
    ) -> None:
        self.walk, self.layer, self.to_stream = walk, layer, to_stream
        self.after, self.outs, self.order, self.readings = dense_pass(
            walk, layer, writers_of(walk, layer), makers
        )
        self.adds_up = _adds_up(walk.dense[0], self.after[0], [self.outs[module][0] for module in self.order])
        self._reached: list[tuple[Tensor, Tensor]] = []

    def inputs(
        self, writer: nn.Module, moments: ModuleMoments | None = None
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield a batch's number, what a writer reads in the pruned layer, and what it should return.

        Both tensors are (batch, length, …). It should return what the dense writer did; with `to_stream`,
        where the layer adds up, also what the residual stream lacks so far.
        """
        walk, before = self.walk, self.order[: self.order.index(writer)]
        last = writer is self.order[-1] and self.adds_up
        for batch, hidden in enumerate(walk.pruned):
            if moments is not None:
                moments.counted = walk.scoring(batch)
            with watching(before) as seen:
                inputs = walk.layers.until(writer, self.layer, batch, hidden)
            target = self.outs[writer][batch].view_as(hidden)
            if self.adds_up:
                stream = hidden + sum(out.view_as(hidden) for _, _, out in seen)
                if self.to_stream:
                    lacking = walk.dense[batch] + sum(self.outs[m][batch].view_as(hidden) for m in before)
                    target = target + lacking - stream
                if last:
                    self._reached.append((inputs, stream))
            yield batch, inputs, target

    def leave(self) -> None:
        """Go on to the next layer; the masks of this one must still be on."""
        walk = self.walk
        if len(self._reached) == len(walk.pruned):  # only the last writer has to run again
            with torch.no_grad():
                walk.pruned = [s + self.order[-1](x).view_as(s) for x, s in self._reached]
        else:
            walk.pruned = [
                walk.layers.run(self.layer, batch, hidden) for batch, hidden in enumerate(walk.pruned)
            ]
        walk.dense = self.after


def by_writer(step: Step, planned: Removed) -> tuple[dict[nn.Module, list[Group]], Removed]:
    """Tell the part of a plan that concerns one layer by depth-2 modules.

    Returns:
        Writer -> the groups whose units it reads, in the order in which they run, and the groups of no writer
        that can be refitted with their units.
    """
    walk = step.walk
    groups = {
        writer: [walk.graph.group(group) for group in planned if writer in modules_of(walk, group, "layer2")]
        for writer in step.order
    }
    told = {group.id for of_writer in groups.values() for group in of_writer}
    return groups, {group: units for group, units in planned.items() if group not in told}


def refit_readers(walk: Walk, layer: int, record: Reconstruction) -> None:
    """Apply Eq. 13 to one layer: to the matrices that read what stays, in the order in which they run."""
    losing = readers_of(walk.graph, walk.model, record.removed, layer)
    step = Step(walk, layer)
    readers = sorted(
        (reader for reader in losing if reader.module in step.outs),
        key=lambda reader: step.order.index(reader.module),
    )
    record.notes += [unfit(reader.name) for reader in losing if reader.module not in step.outs]
    if not losing and walk.pruned is walk.dense:
        walk.dense = walk.pruned = step.after
        return
    with masked(walk.model, walk.graph, of_layer(walk.graph, record.removed, layer)):
        for reader in readers:
            sums = walk.normal(len(reader.stay), reader.matrix().shape[1])
            for batch, inputs, target in step.inputs(reader.module):
                sums.add(batch, inputs[..., reader.stay], target)
            write(reader, guarded(reader, sums, record), record)
        step.leave()


def unfit(name: str) -> str:
    """The note on a matrix that cannot be refitted."""
    return f"{name} does not read every token once and cannot be refitted: left as it is"


def _adds_up(before: Tensor, after: Tensor, outs: list[Tensor]) -> bool:
    """Whether a layer adds what its writers return to the residual stream, and nothing else."""
    parts = [before, *(out.view_as(before) for out in outs)]
    error = (torch.stack(parts).double().sum(dim=0) - after).abs()
    size = torch.stack(parts).double().abs().sum(dim=0)
    allowed = _ROUNDING * torch.finfo(after.dtype).eps * size
    return float((error <= allowed).double().mean()) > 0.99


def guarded(reader: Reader, sums: Normals, record: Reconstruction, *, biased: bool = True) -> Fit:
    """The best change of a reader's weights; out of range (the guard of Eq. 13), that of its bias alone."""
    start = reader.matrix()[reader.stay]
    best = sums.fit(start, biased=biased)
    if in_range(reader, best):
        return best
    # The paper ends here, which leaves the errors of all later layers and undoes the rest.
    left = "only its bias is refitted" if biased else "left as it is"
    record.notes.append(f"{reader.name}: weights out of range, discarded; {left}")
    return sums.shift(start, biased=biased)


def in_range(reader: Reader, best: Fit) -> bool:
    """Whether fitted weights are finite and not far beyond the largest weight before."""
    largest = _RANGE * float(reader.matrix().abs().max())
    return bool(torch.isfinite(best.weight).all()) and float(best.weight.abs().max()) <= largest


def write(reader: Reader, best: Fit, record: Reconstruction) -> None:
    """Put a fit into the model."""
    matrix = reader.resting()
    matrix[reader.stay.to(matrix.device)] = best.weight.to(matrix)
    names = [reader.weight]
    if best.bias is not None:
        reader.module.bias.data.copy_(best.bias)
        names.append(f"{reader.name}.bias")
    record.wrote(reader.name, names, best)
