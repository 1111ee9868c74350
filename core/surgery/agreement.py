"""Whether two models compute the same, told from rounding.

Every decoder layer, and what comes after the last, starts from the *same* inputs: those of the first model.
So nothing adds up over the layers, and a fault is found in the layer that has it.

Where the device can, both compute in float64. What remains of rounding is what the models' code does in
float32 on purpose (statistics of norms, softmax, rotary angles), and norm weights that surgery has rescaled
and stored in the precision of the weights. To know what that can do, rounding is let loose on the first
model: all that enters a layer, and all that its modules give, is off by a unit of rounding, up or down. What
becomes of it in the layer's output is what rounding each number once does there; `_MARGIN` times that is
allowed. A channel of 10,000 beside others of 1 so gets an allowance of its own, and the others get theirs.
A wrong slice is off by a share of what the layer adds, which is orders above.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.errors import NotPrunableError
from core.graph.records import Graph
from core.results.agreement import Agreement
from core.surgery.precision import in_float64
from core.surgery.rehearsal import Instead, Rehearsal, rehearse
from core.surgery.rounding import let_loose

#: How many times what one rounding of everything does two right answers may be apart.
_MARGIN = 64.0
#: How many times rounding is let loose, each time another way: what it does may cancel out once.
_DRAWS = 4
_LAST = "the output layer"
#: Told of every comparison, whether all hold or not.
OnChecked = Callable[[list[Agreement]], None]


@dataclass(frozen=True)
class Reference:
    """What a model computes, and how far rounding may take another from it.

    Attributes:
        first: the run whose outputs the other model's layers start from.
        shaken: the same with rounding let loose, `_DRAWS` times in one batch.
        float64: whether it computed in float64, as the other one has to.
        smallest: the relative unit of that arithmetic.
    """

    first: Rehearsal
    shaken: Rehearsal
    float64: bool
    smallest: float


def refer(model: PreTrainedModel, graph: Graph, *, when: str, rescaled: Collection[str] = ()) -> Reference:
    """Run a model to compare another with it.

    Args:
        when: ends the sentence "X fails ..." should it fail.
        rescaled: the norms whose weights the other model has scaled, and stored in the weights' precision.

    Raises:
        NotPrunableError: the forward fails, or gives numbers that are not finite.
    """
    first, float64 = _first(model, graph, when)
    smallest = torch.finfo(torch.float64 if float64 else model.dtype).eps
    return Reference(first, _shaken(model, graph, first, float64, rescaled), float64, smallest)


def _first(model: PreTrainedModel, graph: Graph, when: str) -> tuple[Rehearsal, bool]:
    """A run in float64, or in the model's precision where the device or the code cannot; and which."""
    if model.device.type != "mps":
        try:
            run = _run(model, graph, when, True)
        except NotPrunableError:
            run = None
        if run is not None and _not_finite(run) is None:
            return run, True
    run = _run(model, graph, when, False)
    if (name := _not_finite(run)) is not None:
        raise NotPrunableError(
            f"{name} gives numbers that are not finite {when}; try float32, or look at the weights."
        )
    return run, False


def _run(
    model: PreTrainedModel,
    graph: Graph,
    when: str,
    float64: bool,
    instead: Instead | None = None,
    copies: int = 1,
) -> Rehearsal:
    with in_float64(model, graph.layer_modules) if float64 else nullcontext():
        return rehearse(model, graph, when=when, instead=instead, copies=copies)


def _not_finite(run: Rehearsal) -> str | None:
    return next((name for name, output in _outputs(run) if not bool(output.isfinite().all())), None)


def _outputs(run: Rehearsal) -> list[tuple[str, Tensor]]:
    return [*run.layers, (_LAST, run.logits)]


def _shaken(
    model: PreTrainedModel, graph: Graph, first: Rehearsal, float64: bool, rescaled: Collection[str]
) -> Rehearsal:
    """The same run again, with all that enters a layer or leaves a module off by half a unit to a whole."""
    stored = torch.finfo(model.dtype).eps / 2
    usual = torch.finfo(torch.float32).eps / 2 if float64 else stored
    when = "with rounding let loose"
    with let_loose(model, lambda name: stored if name in rescaled else usual) as rounding:

        def instead(number: int, _: Tensor) -> Tensor:
            output: Tensor = rounding.of(_repeated(first.layers[number][1]), usual)
            return output

        return _run(model, graph, when, float64, instead, _DRAWS)


def _repeated(output: Tensor) -> Tensor:
    """An output for every draw, (draws x batch, ...)."""
    return output.repeat(_DRAWS, *[1] * (output.dim() - 1))


def _allowed(output: Tensor, shaken: Tensor, smallest: float) -> Tensor:
    """How far rounding may take an output, number by number, (batch, ..., channels).

    Args:
        shaken: what rounding made of it in each draw, (draws x batch, ..., channels). By chance a channel may
            feel little of it, so what the channel in the middle of them all feels is allowed everywhere.
        smallest: the relative unit of the arithmetic itself.
    """
    moved = (shaken - _repeated(output)).double().unflatten(0, (_DRAWS, -1))
    response, output = moved.square().mean(dim=0).sqrt(), output.abs().double()
    response, output = (x.maximum(x.median(dim=-1, keepdim=True).values) for x in (response, output))
    return _MARGIN * (response + smallest * output)


def check(
    model: PreTrainedModel,
    graph: Graph,
    reference: Reference,
    *,
    when: str,
    full: Mapping[str, tuple[int, ...]] | None = None,
    on_checked: OnChecked | None = None,
) -> None:
    """Compare a model with the one that `reference` is of, layer by layer, each from the same inputs.

    Args:
        when: ends the sentence "X fails ..." should it fail.
        full: group id -> units that the model lacks: residual channels are missing in its outputs, too.
        on_checked: told how close every layer came, before anything is raised.

    Raises:
        NotPrunableError: a layer computes something else, or fails; names the first such layer.
    """
    left = _Left(graph, full or {})
    layers, shaken = left.layers(reference.first), left.layers(reference.shaken)
    run = _run(model, graph, when, reference.float64, lambda n, output: _instead(layers[n], output))
    expected, other = [*layers, reference.first.logits], [*shaken, reference.shaken.logits]
    agreements = [
        _agreement(name, now, then, _allowed(then, near, reference.smallest))
        for (name, now), then, near in zip(_outputs(run), expected, other, strict=True)
    ]
    if on_checked is not None:
        on_checked(agreements)
    wrong = next((each for each in agreements if not each.holds), None)
    if wrong is not None:
        raise NotPrunableError(
            f"{wrong.where} does not do {when} what it did with them masked: off by {wrong.difference:.3g}, "
            f"where rounding explains {wrong.allowed:.3g}; this model's code keeps a size that could not be "
            "rewritten. Prune other kinds or layers."
        )


def _instead(then: Tensor, now: Tensor) -> Tensor:
    """What the next layer starts from; an output of another shape goes on, for it cannot be compared."""
    return then.clone() if then.shape == now.shape else now


def _agreement(name: str, now: Tensor, then: Tensor, room: Tensor) -> Agreement:
    if now.shape != then.shape or not bool(now.isfinite().all()):
        return Agreement(name, float(then.abs().max()), 0.0)
    apart = (now - then).abs().double()
    worst = int((apart / room.clamp_min(torch.finfo(torch.float64).tiny)).argmax())
    return Agreement(name, float(apart.flatten()[worst]), float(room.flatten()[worst]))


class _Left:
    """Which channels of the residual stream are left.

    Args:
        full: group id -> units that go.
    """

    def __init__(self, graph: Graph, full: Mapping[str, tuple[int, ...]]) -> None:
        self._gone: dict[int, np.ndarray] = {}
        for group in graph.of_kind("residual_channel"):
            if full.get(group.id):
                ends = [member for member in group.members if member.role in ("embedding", "vector")]
                member = (ends or list(group.members))[0]
                width = graph.parameters[member.parameter].shape[member.dim]
                self._gone[width] = member.index()[list(full[group.id])].ravel()

    def layers(self, run: Rehearsal) -> list[Tensor]:
        """What is left of the outputs of a dense model's layers, (..., channels)."""
        return [self._of(output) for _, output in run.layers]

    def _of(self, output: Tensor) -> Tensor:
        gone = self._gone.get(output.shape[-1])
        if gone is None:
            return output
        staying = np.setdiff1d(np.arange(output.shape[-1]), gone)
        return output.index_select(-1, torch.from_numpy(staying).to(output.device))
