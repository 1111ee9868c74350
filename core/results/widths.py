"""The widths of every layer under a plan, as in `widths.json`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt

from core.files import read_record, reading
from core.graph.records import Graph
from core.plan.blocks import without_blocks
from core.plan.records import PruningPlan, implied

WIDTHS = "widths.json"
#: What is counted in a layer.
KEYS = ("query_heads", "kv_heads", "ffn")


@dataclass(frozen=True)
class Widths:
    """`widths.json`: how many units every layer has left, beside the widest layer of the dense model.

    Attributes:
        layers: {"query_heads", "kv_heads", "ffn"} of every layer, in order; dense: the same, with "hidden".
        hidden: the width of the residual stream, the same in all layers.
    """

    layers: list[dict[str, NonNegativeInt]]
    dense: dict[str, NonNegativeInt]
    hidden: NonNegativeInt


def read_widths(run_dir: Path) -> Widths:
    """Read `widths.json`. Raises ArtifactError."""
    record = read_record(run_dir / WIDTHS, Widths, "run it again")
    with reading(run_dir / WIDTHS, "run it again"):
        layers = [{key: layer[key] for key in KEYS} for layer in record.layers]
        return replace(record, layers=layers, dense={key: record.dense[key] for key in (*KEYS, "hidden")})


def widths(graph: Graph, plan: PruningPlan) -> dict[str, Any]:
    """Heads, key-value heads and FFN channels left in every layer, beside the dense model's.

    Returns:
        {"layers": [{"layer", "query_heads", "kv_heads", "ffn"}], "dense": {..., "hidden"}, "hidden"};
        `dense` gives the widest layer of the dense model.
    """
    removed = implied(graph, plan.removed)
    layers = range(len(graph.layer_modules))
    rest, _ = without_blocks(graph, plan.removed)
    left = [_layer(rest, layer, removed) for layer in layers]
    full = [_layer(graph, layer, {}) for layer in layers]
    hidden = sum(group.units for group in graph.of_kind("residual_channel"))
    gone = sum(len(removed.get(group.id, ())) for group in graph.of_kind("residual_channel"))
    dense = {key: max((row[key] for row in full), default=0) for key in KEYS}
    return {"layers": left, "dense": {**dense, "hidden": hidden}, "hidden": hidden - gone}


def _layer(graph: Graph, layer: int, removed: dict[str, tuple[int, ...]]) -> dict[str, int]:
    attention = next((each for each in graph.attentions if each.layer == layer), None)
    groups = [group for group in graph.groups if group.layer == layer]
    ffn = sum(g.units - len(removed.get(g.id, ())) for g in groups if g.kind == "ffn_channel")
    query = attention.heads if attention else 0
    keys = attention.kv_heads if attention else 0
    for group in groups:
        gone = len(removed.get(group.id, ()))
        if group.kind == "query_head":
            query -= gone
            # Multi-head attention has no key-value group of its own: every head takes its own keys along.
            keys -= gone if group.parent is None and group.units == keys else 0
        elif group.kind == "kv_group":
            keys -= gone
    return {"layer": layer, "query_heads": query, "kv_heads": keys, "ffn": ffn}
