"""How many of the capitals a model still names after the cut that is recommended, without training."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from tests.bench.figure import Figure

TASK, SHARE, GOAL = "bundled_capitals", 0.2, 8.0


def run() -> list[Figure]:
    """What `prune demo --sparsity 0.2 --tasks bundled_capitals` asks for, in a folder of its own."""
    import core
    from core.results.noise import difference
    from core.results.tasks import read_benchmarks
    from core.spec.prune import PruneSpec
    from core.spec.run import RunSpec

    spec = RunSpec(prune=PruneSpec(sparsity=SHARE))
    spec = replace(spec, evaluate=replace(spec.evaluate, tasks=(TASK,), efficiency=False, prompts=()))
    with tempfile.TemporaryDirectory() as name:
        sides = read_benchmarks(core.run(spec, Path(name)))
    dense, pruned = (sides[side].tasks[TASK] for side in ("dense", "pruned"))
    lost = difference(dense, pruned)
    parts = (
        f"{dense.value:.1%} / {pruned.value:.1%}, {dense.n} questions, error {100 * (lost.noise or 0):.1f}"
    )
    name = f"capitals that `prune demo` loses at {SHARE:.0%}, no training"
    return [Figure(name, 100 * (dense.value - pruned.value), "at most", GOAL, "points", parts)]
