"""A sweep of eight points on two nodes of Ray against one: real processes, a small model, a CPU a node."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.runs import launch
from core.runs.artifacts import EVENTS
from core.runs.events import EventReader
from core.runs.status import ENDED, read_status
from core.spec.calibration import DataSpec
from core.spec.cluster import ClusterSpec
from core.spec.evaluate import EvalSpec
from core.spec.model import ModelSpec
from core.spec.run import RunSpec
from core.spec.sweep import SweepSpec
from tests.bench.figure import Figure

POINTS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
#: As deep as a point takes about ten seconds of one core, twice what its process takes to start.
LAYERS = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 8}
LIMIT_S = 900.0


def run() -> list[Figure]:
    """Two nodes first, then one of them is taken away."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        with tempfile.TemporaryDirectory() as folder:
            spec = _sweep(Path(folder), cluster.address)
            second = cluster.add_node(**NODE)
            both = _seconds(Path(folder) / "two", spec)
            cluster.remove_node(second)
            one = _seconds(Path(folder) / "one", spec)
    finally:
        cluster.shutdown()
    parts = f"{one:.1f} s / {both:.1f} s for {len(POINTS)} points of a small model, a core for each node"
    return [Figure("a sweep on one Ray node / on two", one / both, "at least", 1.8, "x", parts)]


def _sweep(folder: Path, address: str) -> RunSpec:
    from tests.conftest import llama_config, random_model, word_tokenizer

    model, text = folder / "model", folder / "text.txt"
    random_model(llama_config(**LAYERS)).save_pretrained(model)
    word_tokenizer().save_pretrained(model)
    text.write_text("the king and the people of the world " * 4000, encoding="utf-8")
    return RunSpec(
        goal="sweep",
        model=ModelSpec(str(model), device="cpu"),
        calibration=replace(DataSpec(), name=str(text), length=32),
        evaluate=EvalSpec(text=str(text), window=256, tokens=24576),
        sweep=SweepSpec(("l2",), POINTS, ("local",), ("none",), (0,), (8,)),
        cluster=ClusterSpec("ray", address),
    )


def _seconds(runs_dir: Path, spec: RunSpec) -> float:
    """From the first point that is handed out to the last that is collected. Raises RuntimeError."""
    run_dir = launch.start(runs_dir, spec)
    end = time.monotonic() + LIMIT_S
    while (status := read_status(run_dir)).state not in ENDED and time.monotonic() < end:
        time.sleep(0.2)
    if status.state != "finished":
        raise RuntimeError(f"{run_dir} is {status.state}: {status.error}")
    events: Any = EventReader(run_dir / EVENTS).read()
    times = [event.time for event in events if event.type in ("stage", "done")]
    return float(times[-1] - times[0])
