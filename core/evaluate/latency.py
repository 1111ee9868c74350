"""Time a model on this machine with less and less of each kind of unit, in turns with the model as it is."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch

from core.devices.memory import free_memory
from core.errors import LaunchError
from core.evaluate.efficiency import measure, weights_bytes
from core.graph.records import Graph, Group
from core.models.again import cut_loaded
from core.models.load import Loaded
from core.plan.dropping import droppable
from core.plan.latency import TIMED_KINDS, Machine, Timings, fingerprint, size_of
from core.plan.records import PruningPlan
from core.results.efficiency import Efficiency
from core.spec.budget import Reads

#: Shares of every group's units that are gone where a kind is timed; the last leaves as little as can be.
SHARES = (0.3, 0.6, 1.0)
#: Blocks that can go by themselves; a layer goes with all of its own.
_BLOCKS = ("attention_block", "ffn_block")
_ROUNDS = 5


@dataclass(frozen=True)
class _Cut:
    """A way to cut the model for a timing.

    Attributes:
        kind: of what goes; share: of it, of all units or blocks of the kind, by parameters for blocks.
    """

    kind: str
    share: float
    removed: dict[str, tuple[int, ...]]


def machine_of(loaded: Loaded) -> Machine:
    """What times of this model depend on beside it."""
    on = loaded.device
    device = torch.cuda.get_device_name(on) if on.type == "cuda" else _processor()
    threads = torch.get_num_threads() if on.type == "cpu" else 0
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    attention = loaded.model.config._attn_implementation or ""
    return Machine(platform.node(), device, threads, dtype, attention, str(torch.__version__))


def _processor() -> str:
    """The name of the processor, as far as the system tells."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def timed(
    models: dict[str, Any],
    reads: Reads,
    *,
    rounds: int = _ROUNDS,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, tuple[float, ...]]:
    """Milliseconds of each round, models in turns: reading the prompts, and writing if that is asked for."""
    measured = measure(
        models,
        prompt_tokens=reads.tokens,
        new_tokens=max(1, reads.new),
        repeats=rounds,
        batch_sizes=(reads.batch,),
        on_progress=on_progress,
    )
    return {name: _whole(of, reads) for name, of in measured.items()}


def _whole(measured: Efficiency, reads: Reads) -> tuple[float, ...]:
    (of,) = measured.timings
    both = zip(of.prefill_rounds_ms, of.decode_rounds_ms, strict=True)
    return tuple(prefill + reads.new * decode for prefill, decode in both)


def time_machine(
    loaded: Loaded,
    graph: Graph,
    reads: Reads,
    multiple: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Timings:
    """The times of a model here: of every kind of unit at several widths, and of whole blocks.

    What varies from one moment to the next hits the dense model and the cut one alike, so each saving is a
    share of the dense model's time in the same minute.

    Raises:
        LaunchError: memory does not hold the model twice.
    """
    _require_room(loaded)
    cuts = [*_widths(graph, multiple), *_blocks(graph)]
    dense: list[float] = []
    saved: dict[str, list[tuple[float, float]]] = {}
    for number, each in enumerate(cuts):
        if on_progress:
            on_progress(number, len(cuts))
        small = cut_loaded(
            replace(loaded, model=copy.deepcopy(loaded.model)),
            graph,
            PruningPlan(each.removed),
            checked=False,
        )
        of = timed({"dense": loaded.model, "cut": small.model}, reads)
        dense += of["dense"]
        saved.setdefault(each.kind, []).append((each.share, 1 - median(of["cut"]) / median(of["dense"])))
    whole, quarters = median(dense), quantiles(dense, n=4)
    return Timings(
        fingerprint(graph),
        str(reads),
        multiple,
        machine_of(loaded),
        time.time(),
        whole,
        quarters[2] - quarters[0],
        {kind: _rising(points, whole) for kind, points in saved.items() if kind in TIMED_KINDS},
        {
            kind: max(0.0, share / of * whole)
            for kind, points in saved.items()
            if kind not in TIMED_KINDS
            for of, share in points
        },
    )


def _rising(points: list[tuple[float, float]], whole: float) -> tuple[tuple[float, float], ...]:
    """Points in milliseconds, none below the one before: less cannot take longer but by the noise."""
    saved = np.maximum.accumulate([max(0.0, share) * whole for _, share in points])
    return tuple((share, float(value)) for (share, _), value in zip(points, saved, strict=True))


def _widths(graph: Graph, multiple: int) -> Iterator[_Cut]:
    """Every kind that can go, at every share; units by lot, for scores do not spare whole key-value heads."""
    lots = np.random.default_rng(0)
    for kind in TIMED_KINDS:
        groups = [group for group in graph.of_kind(kind) if group.prunable]
        gone = {group.id: lots.permutation(group.units) for group in groups}
        before: dict[str, int] = {}
        for share in SHARES if groups else ():
            counts = {group.id: _count(group, share, multiple) for group in groups}
            actual = sum(counts.values()) / sum(group.units for group in groups)
            removed = {name: tuple(sorted(gone[name][:n].tolist())) for name, n in counts.items() if n}
            if removed and counts != before:
                yield _Cut(kind, actual, removed)
            before = counts


def _count(group: Group, share: float, multiple: int) -> int:
    """Units that go: those that stay are at least one, or whole multiples."""
    step = multiple if group.kind == "ffn_channel" and group.units >= multiple else 1
    return group.units - max(step, round((1 - share) * group.units / step) * step)


def _blocks(graph: Graph) -> Iterator[_Cut]:
    """Every second block of a kind taken out; of layers only where nothing smaller can go."""
    kinds = [kind for kind in _BLOCKS if len(droppable(graph, kind)) > 1]
    for kind in kinds or ["layer"]:
        gone = droppable(graph, kind)[1::2]
        if gone:
            whole = sum(size_of(graph, block) for block in graph.of_kind(kind))
            share = sum(size_of(graph, block) for block in gone) / whole
            yield _Cut(kind, share, {block.id: (0,) for block in gone})


def _require_room(loaded: Loaded) -> None:
    needed, free = 1.1 * weights_bytes(loaded.model), free_memory(loaded.device)
    if free < needed:
        raise LaunchError(
            f"To time this model, memory must hold it twice: {needed / 2**30:.1f} GiB more, and "
            f"{free / 2**30:.1f} GiB are free. Give macs=-30% instead of a latency, or free some memory."
        )
