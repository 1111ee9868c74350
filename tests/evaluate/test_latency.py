"""Timing a machine: what is cut for it, and that what was timed predicts plans in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import LaunchError
from core.evaluate import latency
from core.graph.discover import discover
from core.graph.records import Graph
from core.models.load import Loaded, load
from core.plan.latency import Timings
from core.spec.budget import Reads
from core.surgery.operate import operate

READS = Reads(1, 8)


def by_size(models: dict[str, Any], reads: Reads, **_: Any) -> dict[str, tuple[float, ...]]:
    """A machine that takes as many milliseconds as the layers have thousands of parameters."""
    return {
        name: (sum(p.numel() for p in of.model.layers.parameters()) / 1e3,) for name, of in models.items()
    }


@pytest.fixture
def loaded(tiny_llama_folder: Path) -> Loaded:
    return load(source=str(tiny_llama_folder), device="cpu")


def timings_of(loaded: Loaded, graph: Graph, multiple: int = 1) -> Timings:
    return latency.time_machine(loaded, graph, READS, multiple)


def test_plans_between_what_was_timed_are_predicted(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "timed", by_size)
    graph, model = discover(loaded.model, name="tiny"), loaded.model
    before = [p.detach().clone() for p in model.parameters()]
    timings = timings_of(loaded, graph)
    assert all((now == then).all() for now, then in zip(model.parameters(), before, strict=True))
    assert set(timings.blocks_ms) == {"attention_block", "ffn_block"}
    lots = np.random.default_rng(1)
    plan = {
        g.id: tuple(sorted(lots.permutation(g.units)[: g.units // 2 - (g.layer or 0)].tolist()))
        for g in graph.of_kind("ffn_channel")
    } | {"L00.attention_block": (0,)}
    predicted = timings.predicted(graph, plan)
    assert predicted < 0.8 * timings.dense_ms
    (actual,) = by_size({"cut": operate(model, graph, plan)}, READS)["cut"]
    assert predicted == pytest.approx(actual, rel=0.02)


def test_widths_that_are_timed_are_whole_multiples_and_savings_rise(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noisy(models: dict[str, Any], reads: Reads, **_: Any) -> dict[str, tuple[float, ...]]:
        seen.append([layer.mlp.down_proj.weight.shape[1] for layer in models["cut"].model.layers[:1]])
        return {"dense": (10.0, 12.0), "cut": (30.0 if len(seen) == 2 else 8.0,)}

    monkeypatch.setattr(latency, "timed", noisy)
    graph = discover(loaded.model, name="tiny")
    timings = timings_of(loaded, graph, multiple=8)
    assert all(width % 8 == 0 for (width,) in seen[:3])
    saved = [milliseconds for _, milliseconds in timings.saved_ms["ffn_channel"]]
    assert saved == sorted(saved) and saved[1] == saved[0] > 0, "one that took longer saves no less"
    assert (timings.dense_ms, timings.spread_ms) == (11.0, 2.0)


def test_a_model_is_really_timed_with_tokens_written_counted(loaded: Loaded) -> None:
    (reading,) = latency.timed({"m": loaded.model}, Reads(2, 8), rounds=1)["m"]
    (both,) = latency.timed({"m": loaded.model}, Reads(2, 8, 12), rounds=1)["m"]
    assert both > reading > 0
    machine = latency.machine_of(loaded)
    assert machine.threads > 0 and machine.dtype == "float32" and machine.device


def test_without_room_for_the_model_twice_nothing_is_timed(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "free_memory", lambda device: 1000)
    with pytest.raises(LaunchError, match=r"memory must hold it twice.*macs=-30%"):
        timings_of(loaded, discover(loaded.model, name="tiny"))
