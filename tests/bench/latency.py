"""How far a budget of time is met by the demo model: what was predicted against what the cut model takes."""

from __future__ import annotations

import copy
from dataclasses import replace
from statistics import median
from typing import Any

from tests.bench.figure import Figure

READS = ((1, 128, 0), (4, 128, 0), (1, 64, 32))
ASKED: tuple[dict[str, Any], ...] = ({}, {"drop": "layer=4"}, {"kinds": ("ffn_channel",)})


def run() -> list[Figure]:
    """Plans of width, of depth and width, and of channels alone, in three quarters of the dense time."""
    from core.evaluate.latency import time_machine, timed
    from core.graph.discover import discover
    from core.models.again import cut_loaded
    from core.models.load import load
    from core.plan.allocation import allocate
    from core.spec.budget import Reads
    from tests.plan.made import random_scores

    loaded = load(device="cpu")
    graph, figures = discover(loaded.model, name="demo"), list[Figure]()
    for shape, asked in zip(READS, ASKED, strict=True):
        reads = Reads(*shape)
        timings = time_machine(loaded, graph, reads)
        plan = allocate(
            graph, random_scores(graph), sparsity=0, target=f"latency=-25%@{reads}", timings=timings, **asked
        )
        predicted = timings.predicted(graph, plan.removed)
        small = cut_loaded(replace(loaded, model=copy.deepcopy(loaded.model)), graph, plan, checked=False)
        times = timed({"dense": loaded.model, "cut": small.model}, reads, rounds=9)
        now, dense = median(times["cut"]), median(times["dense"])
        off = max(now / predicted, predicted / now)
        of = " and ".join(map(str, asked.values())) or "width"
        name = f"time at {reads}, 25 % less asked for, {of} / predicted, either way"
        parts = f"{now:.1f} ms / {predicted:.1f} ms, dense {dense:.1f} ms, {timings.dense_ms:.1f} ms before"
        figures.append(Figure(name, off, "at most", 1.1, "x", parts))
    return figures
