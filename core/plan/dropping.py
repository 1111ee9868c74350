"""Which whole blocks go: so many of each kind, those that are worth least."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from core.errors import NotPrunableError
from core.graph.records import BLOCKS, Graph, Group
from core.plan.blocks import Removed
from core.spec.checks import parse_layers
from core.spec.depth import DROPPED, drops_of

#: Block -> what it is worth; those with the least go.
Worth = Mapping[str, float]
_HEADS = ("query_head", "kv_group")


def droppable(graph: Graph, kind: str, layers: str | None = None) -> list[Group]:
    """The blocks of a kind that may go, in order of layer."""
    inside = parse_layers(layers, len(graph.layer_modules)) if layers is not None else None
    blocks = [group for group in graph.of_kind(kind) if group.prunable]
    return [group for group in blocks if inside is None or group.layer in inside]


def dropped(graph: Graph, drop: str, worth: Worth | None, layers: str | None = None) -> Removed:
    """The blocks that go; those inside a layer that goes count no more.

    Args:
        drop: as in `core.spec.depth`; worth: None takes the first of each kind, right for sizes only.

    Raises:
        SpecError: `drop` cannot be read.
        NotPrunableError: there are not so many, or none would stay; says how many may go, and why.
    """
    drops, gone, emptied = drops_of(drop), list[Group](), set[int | None]()
    for kind in (each for each in DROPPED if each in drops):
        left = [group for group in droppable(graph, kind, layers) if group.layer not in emptied]
        _check_count(graph, kind, drops[kind], left, emptied)
        left.sort(key=lambda group: worth[group.id] if worth is not None else 0.0)
        gone += left[: drops[kind]]
        emptied |= {group.layer for group in gone if kind == "layer"}
    return {group.id: (0,) for group in gone}


def _check_count(graph: Graph, kind: str, wanted: int, left: list[Group], emptied: set[int | None]) -> None:
    everywhere = [group for group in graph.of_kind(kind) if group.layer not in emptied]
    most = min(len(left), max(0, len(everywhere) - 1))
    if wanted <= most:
        return
    reasons = {g.reason for g in graph.of_kind(kind) if g.reason} | {
        refusal["reason"] for refusal in graph.not_prunable if refusal["kind"] in (kind, "layer")
    }
    limit = "layers names no more" if len(left) < len(everywhere) else "one of the model must stay"
    why = f": {'; '.join(sorted(reasons))}" if reasons else f", since {limit}"
    raise NotPrunableError(
        f"drop asks for {wanted} {DROPPED[kind]}, and at most {most} can go{why}. "
        "Ask for fewer, or for other layers."
    )


def summed(graph: Graph, scores: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Block -> the sum of the scores of all units inside it; without blocks of which a part has no scores.

    Args:
        scores: group id -> one score per unit, (units,).
    """
    worth = {}
    for block in graph.of_kind(*BLOCKS):
        own = {member.parameter for member in block.members}
        inside = [group for group in graph.of_kind(*_HEADS, "ffn_channel") if group.layer == block.layer]
        inside = [group for group in inside if own.issuperset(m.parameter for m in group.members)]
        scored = [group for group in inside if group.id in scores]
        parts = {group.kind == "ffn_channel" for group in inside}
        channels = [group for group in inside if group.kind == "ffn_channel"]
        whole = parts == {group.kind == "ffn_channel" for group in scored}
        if inside and whole and all(group.id in scores for group in channels):
            # Query heads and key-value groups own the same heads.
            first = next((kind for kind in _HEADS if any(group.kind == kind for group in scored)), "")
            counted = [group for group in scored if group.kind in ("ffn_channel", first)]
            worth[block.id] = float(sum(scores[group.id].sum(dtype="float64") for group in counted))
    return worth
