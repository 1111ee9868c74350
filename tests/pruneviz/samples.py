"""Run directories as a worker leaves them, and a small dependency graph. No torch."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from core.graph.records import Attention, Graph, Group, Member, Parameter, to_runs
from core.results.efficiency import Efficiency, Timing
from core.runs.artifacts import EVENTS, GROUPS, LOG, METRICS, SPEC
from core.runs.events import EventWriter
from core.runs.status import Status, write_status
from core.spec.prune import PruneSpec
from core.spec.run import RunSpec

STAGES = ["load", "graph", "capture", "score", "plan", "surgery", "evaluate", "export"]
HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB, LAYERS = 16, 4, 2, 4, 12, 10, 2


def _member(parameter: str, dim: int, units: int, width: int = 1, role: Any = "layer1") -> Member:
    return Member(parameter, dim, role, width, to_runs(np.arange(units * width)))


def graph() -> Graph:
    """Two layers with grouped-query attention; embeddings are the only parameter outside of layers."""
    parameters = {"embed": Parameter((VOCAB, HIDDEN), 1.0, "Embedding", None)}
    groups: list[Group] = []
    for layer in range(LAYERS):
        at = f"layer{layer}."
        shapes = {
            "norm": (HIDDEN,), "q": (HEADS * HEAD_DIM, HIDDEN), "k": (KV_HEADS * HEAD_DIM, HIDDEN),
            "v": (KV_HEADS * HEAD_DIM, HIDDEN), "o": (HIDDEN, HEADS * HEAD_DIM), "up": (FFN, HIDDEN),
            "down": (HIDDEN, FFN),
        }  # fmt: skip
        for name, shape in shapes.items():
            parameters[f"{at}{name}.weight"] = Parameter(shape, float(len(shape) > 1), "Linear", layer)
        name = f"L{layer:02d}"
        wide = HEAD_DIM * HEADS // KV_HEADS
        keys = [_member(f"{at}{p}.weight", 0, KV_HEADS, HEAD_DIM) for p in ("k", "v")]
        shared = [
            _member(at + "q.weight", 0, KV_HEADS, wide),
            _member(at + "o.weight", 1, KV_HEADS, wide, "layer2"),
        ]
        heads = (
            _member(at + "q.weight", 0, HEADS, HEAD_DIM),
            _member(at + "o.weight", 1, HEADS, HEAD_DIM, "layer2"),
        )
        ffn = (_member(at + "up.weight", 0, FFN), _member(at + "down.weight", 1, FFN, role="layer2"))
        groups += [
            Group(f"{name}.kv_group", "kv_group", layer, KV_HEADS, (*keys, *shared)),
            Group(
                f"{name}.query_head", "query_head", layer, HEADS, heads, parent=f"{name}.kv_group",
                parent_unit=(0, 0, 1, 1),
            ),
            Group(f"{name}.ffn_channel", "ffn_channel", layer, FFN, ffn),
        ]  # fmt: skip
    attentions = tuple(Attention(i, f"layer{i}", HEADS, KV_HEADS, HEAD_DIM, HEAD_DIM) for i in range(LAYERS))
    modules = tuple(f"layer{i}" for i in range(LAYERS))
    return Graph("tiny", "llama", False, 0.1, parameters, tuple(groups), attentions, modules)


def make_run(
    runs_dir: Path,
    name: str,
    spec: RunSpec | None = None,
    *,
    metrics: dict[str, Any] | None = None,
    events: list[tuple[Any, str, dict[str, Any]]] | None = None,
    log: str = "",
    with_graph: bool = False,
    **status: Any,
) -> Path:
    """Write one run directory; by default a finished pruning run of the demo model."""
    run_dir = runs_dir / name
    run_dir.mkdir(parents=True)
    spec = spec or RunSpec(prune=PruneSpec(sparsity=0.2))
    (run_dir / SPEC).write_text(spec.to_json())
    now = time.time()
    values = {
        "state": "finished",
        "stage": "export",
        "stages": STAGES,
        "created": now - 100,
        "started": now - 90,
    }
    write_status(run_dir, Status(**{**values, "ended": now - 30, **status}))
    (run_dir / LOG).write_text(log)
    if with_graph:
        (run_dir / GROUPS).write_text(graph().to_json())
    if metrics is not None:
        (run_dir / METRICS).write_text(json.dumps(metrics))
    writer = EventWriter(run_dir / EVENTS)
    for kind, stage, data in events or []:
        writer.write(kind, stage, **data)
    writer.close()
    return run_dir


def efficiency(prefill_ms: Sequence[float], decode_ms: Sequence[float], *, rounds: bool = True) -> Efficiency:
    """What a model costs whose rounds took so long; `rounds`: whether each of them is kept."""
    read, write = median(prefill_ms), median(decode_ms)
    timing = Timing(
        1, 64, 8, len(prefill_ms), read, max(prefill_ms) - min(prefill_ms), 64e3 / read,
        write, max(decode_ms) - min(decode_ms), 1e3 / write,
        tuple(prefill_ms) if rounds else (), tuple(decode_ms) if rounds else (),
    )  # fmt: skip
    return Efficiency(1000, read, 1e3 / write, 0.1, 0.1, 2048, (timing,))


MEASURED: dict[str, Any] = {
    "params_before": 1000, "params_after": 842, "macs_before": 900, "macs_after": 742,
    "kv_bytes_per_token_before": 2048, "kv_bytes_per_token_after": 2048, "sparsity": 0.2,
    "sparsity_total": 0.158, "ppl_before": 26.2, "ppl_after": 59.2, "ppl_text": "bundled", "ppl_window": 256,
    "ppl_tokens": 8192, "latency_ms_before": 412.0, "latency_ms_after": 351.0,
    "tokens_per_second_before": 14.2, "tokens_per_second_after": 17.9,
    "memory_gib_before": None, "memory_gib_after": None,
}  # fmt: skip
