"""One pass over calibration text: the statistics that criteria need, folded as they come.

A gradient is folded and freed the moment it is complete, an attention map before the next layer's exists,
and of activations only running moments stay. So nothing as large as the model is kept, but where the gradient
over all samples is needed and they do not go through at once; `memory.py` says then how much.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.capture.activations import FeatureSizes
from core.capture.divergence import Divergences, attending_plainly
from core.capture.gradients import Gradients
from core.capture.losses import sample_losses
from core.capture.memory import window_bytes
from core.capture.moments import ModuleMoments, Moments, Squares
from core.capture.names import COARSE, DIVERGENCE, GRADIENTS, OVER_DATA, PER_INDEX, PER_SAMPLE
from core.capture.reading import FEW, Needed, Reading, reading
from core.capture.slices import Key, slices
from core.devices.memory import free_memory
from core.errors import DataError, UnknownNameError
from core.graph.hooks import evaluating
from core.graph.places import maker_of, reader_of
from core.graph.records import Graph
from core.models.tokens import Progress, special_positions

#: Of the inputs of modules that read units, and of the outputs of modules that make FFN channels.
INPUTS = ("input_mean", "input_variance", "input_norm", "input_second_moment")
OUTPUTS = ("output_second_moment",)
#: What `capture` can measure, by the name that criteria ask for.
STATISTICS = (*INPUTS, *OUTPUTS, DIVERGENCE, *PER_INDEX, COARSE)
#: Residual channels run through every parameter, embeddings included: they are captured only if asked for.
CAPTURED_KINDS = ("ffn_channel", "query_head", "kv_group")


@dataclass
class Statistics:
    """What one pass showed.

    Attributes:
        values: statistic -> (parameter, dim) -> one number per index along that dim, (size,), float32;
            (experts, size) for a stack of experts.
        structures: group id -> the per-unit terms `gradient_coarse`, slice by slice, (units,).
        divergence: layer -> distance of every pair of heads, (heads, heads).
        captured: the statistics that were asked for.
        windows: how many were read; tokens: positions in them that count.
        predicted: tokens whose prediction gave the loss, 0 if no gradient was asked for.
        loss: mean next-token loss, None if no gradient was asked for.
        kinds: the unit kinds whose parameters were looked at.
    """

    values: dict[str, dict[Key, Tensor]] = field(default_factory=dict)
    structures: dict[str, list[Tensor]] = field(default_factory=dict)
    divergence: dict[int, Tensor] = field(default_factory=dict)
    captured: frozenset[str] = frozenset()
    windows: int = 0
    tokens: int = 0
    predicted: int = 0
    loss: float | None = None
    kinds: tuple[str, ...] = CAPTURED_KINDS


def capture(
    model: PreTrainedModel,
    graph: Graph,
    windows: Tensor,
    *,
    needs: set[str],
    batch_size: int | None = None,
    kinds: Sequence[str] = CAPTURED_KINDS,
    sizes: FeatureSizes | None = None,
    on_progress: Progress | None = None,
    on_reading: Callable[[str], None] | None = None,
) -> Statistics:
    """Run calibration windows through the model and keep what `needs` names.

    Where each sample's own gradient is needed, a backward is made per window; where only the gradient over
    all of them is, all go through at once if memory holds them. Once is enough but where the terms of all
    parameters do not fit beside it. Positions of padding and special tokens do not count, neither as inputs
    nor as predictions.

    Args:
        windows: token ids, (windows, length).
        batch_size: windows per batch where one window at a time is not needed; None for as many as are useful
            and fit.
        kinds: only modules and parameters of these kinds' groups are looked at.
        sizes: collects in the same pass.
        on_progress: told (windows done, windows in all) after each batch, and within a large one.
        on_reading: told beforehand in words what memory the gradients over all windows need.

    Raises:
        UnknownNameError: a statistic that does not exist.
        DataError: no window holds a token that counts, a weight or activation is not finite, or the memory
            does not suffice.
    """
    if stray := needs - set(STATISTICS):
        raise UnknownNameError(
            f"Unknown statistic {', '.join(sorted(stray))}. Available: {', '.join(STATISTICS)}."
        )
    if not needs:
        return Statistics(kinds=tuple(kinds))
    run = _Pass(model, graph, needs, kinds)
    plan = run.reading(windows, batch_size)
    if plan.words and on_reading is not None:
        on_reading(plan.words)
    told = _Told(len(windows) * len(plan.sweeps), on_progress or (lambda done, total: None))
    for names in plan.sweeps:
        looking = None if told.done else sizes
        with run.watch(names), looking.watch() if looking else nullcontext():
            for batch in windows.split(plan.size):
                if looking:
                    looking.begin(~special_positions(model, batch))
                if run.gradients is not None:
                    run.gradients.on_share = partial(told.within, len(batch))
                run.read(batch.to(model.device))
                told.after(len(batch))
    return run.finish(len(windows), kinds)


class _Told:
    """How far a pass is, in windows: also within a batch, which may be all of them, as its backward goes."""

    def __init__(self, total: int, on_progress: Progress) -> None:
        self.total, self.on_progress = total, on_progress
        self.done = self.told = 0

    def within(self, size: int, share: float) -> None:
        """This share of a batch of `size` windows is done."""
        windows = self.done + int(size * share)
        if self.told < windows < self.done + size:
            self.told = windows
            self.on_progress(windows, self.total)

    def after(self, size: int) -> None:
        """A batch is done."""
        self.done = self.told = self.done + size
        self.on_progress(self.done, self.total)


class _Pass:
    """The collectors of one pass and the model they look at."""

    def __init__(self, model: PreTrainedModel, graph: Graph, needs: set[str], kinds: Sequence[str]) -> None:
        self.model, self.needs = model, needs
        self.gradients = Gradients(graph, kinds, needs, model.device) if needs & GRADIENTS else None
        self.divergences = Divergences(model, graph) if DIVERGENCE in needs else None
        readers, makers = watched_modules(model, graph, kinds)
        self.moments = ModuleMoments(
            readers if needs & set(INPUTS) else {}, makers if needs & set(OUTPUTS) else {}
        )
        inside = set(model.base_model.modules())
        watched = [*self.moments.readers.values(), *self.moments.makers.values()]
        # Without a loss the output layer only has work to do if somebody looks at it.
        self.whole = not inside.issuperset(watched)
        self.first = True
        self.tokens = self.predicted = self.samples = 0
        self.loss = 0.0

    def reading(self, windows: Tensor, size: int | None) -> Reading:
        """How the windows are read, and whether one backward sees them all. Raises DataError."""
        each, lasting = bool(self.needs & PER_SAMPLE), self.needs & set(OVER_DATA)
        if not lasting or self.gradients is None:
            size = 1 if each else size or FEW
            return Reading(size, (frozenset(self.gradients.dims if self.gradients else ()),))
        kept = {name: 4 * len(lasting) * number for name, number in self.gradients.sizes.items()}
        weighed = 0 if each or len(windows) == 1 else self._weighed(windows[:1].to(self.model.device))
        needed = Needed(weighed, kept, free_memory(self.model.device))
        plan = reading(len(windows), needed, each=each, size=size)
        self.gradients.at_once = plan.size == len(windows)
        return plan

    def _weighed(self, window: Tensor) -> int:
        """Bytes that one window's backward needs, of its forward."""
        assert self.gradients is not None, "only a backward is weighed"
        plainly = attending_plainly(self.model) if self.divergences else nullcontext()

        def beginning(tokens: int) -> Tensor:
            ids = window[:, :tokens]
            return sample_losses(self.model, ids, torch.ones_like(ids, dtype=torch.bool))[0]

        with evaluating(self.model), plainly, self.gradients.watch(self.model, self.gradients.dims):
            vocabulary = int(self.model.config.get_text_config().vocab_size)
            return window_bytes(self.model, beginning, length=window.shape[1], vocabulary=vocabulary)

    @contextmanager
    def watch(self, names: Collection[str]) -> Iterator[None]:
        """Set the hooks and evaluation mode; afterwards all is as it was.

        Args:
            names: the parameters whose gradients are taken; all else is collected in the first sweep only.
        """
        divergences = self.divergences.watch() if self.divergences and self.first else nullcontext()
        moments = self.moments.watch() if self.first else nullcontext()
        gradients = self.gradients.watch(self.model, names) if self.gradients else torch.no_grad()
        with evaluating(self.model), divergences, moments, gradients:
            yield
        if self.gradients:
            self.gradients.end_sweep()
        self.first = False

    def read(self, ids: Tensor) -> None:
        """Run one batch of token ids, (batch, length)."""
        counted = ~special_positions(self.model, ids)
        self.moments.counted = counted
        self.tokens += int(counted.sum()) if self.first else 0
        with self.divergences.batch(counted) if self.divergences and self.first else nullcontext():
            if self.gradients:
                self._backward(ids, counted, self.gradients)
            elif self.whole:
                self.model(input_ids=ids, use_cache=False)
            else:
                self.model.base_model(input_ids=ids, use_cache=False)

    def _backward(self, ids: Tensor, counted: Tensor, gradients: Gradients) -> None:
        losses, predicted = sample_losses(self.model, ids, counted)
        counting = predicted > 0
        if bool(counting.any()):
            losses[counting].sum().backward()
            gradients.end_backward()
        if self.first:
            self.samples += int(counting.sum())
            self.predicted += int(predicted.sum())
            self.loss += float((losses.detach() * predicted)[counting].sum())

    def finish(self, windows: int, kinds: Sequence[str]) -> Statistics:
        """Gather what the collectors hold. Raises DataError."""
        if not self.tokens or (self.gradients and not self.predicted):
            raise DataError("The calibration text holds nothing but special tokens; give another text.")
        statistics = Statistics(captured=frozenset(self.needs), windows=windows, tokens=self.tokens)
        statistics.kinds = tuple(kinds)
        if self.gradients:
            statistics.values |= self.gradients.means(self.samples)
            statistics.structures = self.gradients.structures(self.samples)
            statistics.predicted, statistics.loss = self.predicted, self.loss / self.predicted
        statistics.values |= moment_values(self.moments, self.needs)
        if self.divergences:
            statistics.divergence = self.divergences.means()
        check_finite(self.model, statistics)
        return statistics


def moment_values(moments: ModuleMoments, needs: set[str]) -> dict[str, dict[Key, Tensor]]:
    """The statistics among `needs` that are moments, as in `Statistics.values`."""
    sides = {name: moments.inputs if name in INPUTS else moments.outputs for name in (*INPUTS, *OUTPUTS)}
    return {
        name: {key: _read(collected, name) for key, collected in side.items()}
        for name, side in sides.items()
        if name in needs
    }


def _read(moments: Moments | Squares, name: str) -> Tensor:
    values: Tensor = getattr(moments, name.split("_", 1)[1])
    return values


def watched_modules(
    model: nn.Module, graph: Graph, kinds: Collection[str]
) -> tuple[dict[Key, nn.Module], dict[Key, nn.Module]]:
    """Modules that read the units of these kinds, and those that make FFN channels."""
    readers: dict[Key, nn.Module] = {}
    makers: dict[Key, nn.Module] = {}
    for group in graph.of_kind(*kinds):
        for part in slices(graph, group) if group.prunable else ():
            if reader := reader_of(model, graph, part.member):
                readers[part.key] = reader
            if group.kind == "ffn_channel" and (maker := maker_of(model, part.member)):
                makers[part.key] = maker
    return readers, makers


def check_finite(model: nn.Module, statistics: Statistics) -> None:
    """Raise DataError if a captured number is not finite, naming the parameter to blame."""
    flat = [(key, values) for by_key in statistics.values.values() for key, values in by_key.items()]
    bad = next((key for key, values in flat if not bool(torch.isfinite(values).all())), None)
    if bad is not None:
        check_weights(model)
        raise DataError(
            f"Activations or gradients at {bad[0]} are not finite, though all weights are: they overflow "
            "in this precision; run with --dtype float32 or bfloat16."
        )


def check_weights(model: nn.Module) -> None:
    """Raise DataError for the first parameter that holds a NaN or an infinity."""
    for name, parameter in model.named_parameters():
        wrong = int((~torch.isfinite(parameter.detach())).sum())
        if wrong:
            raise DataError(
                f"Parameter {name} holds {wrong:,} of {parameter.numel():,} numbers that are NaN or "
                "infinite, so nothing can be scored; load the model again from an undamaged file."
            )
