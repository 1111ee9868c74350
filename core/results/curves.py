"""What each group costs as it loses units, from what was kept: a search, or a scan of the layers."""

from __future__ import annotations

import math

from core.graph.records import Graph
from core.plan.curves import Curve
from core.results.search import Search
from core.results.sensitivity import Sensitivity

#: Part of a layer that a scan prunes -> kinds of its units, the first that the layer has.
KINDS = {"attention": ("query_head", "kv_group"), "ffn": ("ffn_channel",)}
#: What a broken model counts as, in nats: no curve has an end at infinity.
_BROKEN = 20.0


def curves_of_search(search: Search, graph: Graph) -> dict[str, Curve]:
    """The curves of a search, of the groups that this model has."""
    known = {name: each for name, each in search.curves.items() if name in graph.by_id}
    return {name: Curve(each.gone, each.loss) for name, each in known.items() if len(each.gone) > 1}


def curves_of_scan(scan: Sensitivity, graph: Graph) -> dict[str, Curve]:
    """What a scan says of attention and FFN of each layer alone: log perplexity over that of the whole model.

    A layer with several groups of a kind, such as experts, has no curve: a scan prunes them together.
    """
    points: dict[str, dict[int, float]] = {}
    for point in scan.points:
        group = _group(graph, point["layer"], point["kind"])
        if group is None or point["ratio"] is None or scan.baseline_ppl <= 0:
            continue
        units, ppl = graph.group(group).units, point["ppl"]
        gone = min(units - 1, round(point["ratio"] * units))
        sound = ppl is not None and math.isfinite(ppl) and ppl > 0
        loss = math.log(ppl / scan.baseline_ppl) if sound else _BROKEN
        if gone > 0:
            points.setdefault(group, {0: 0.0})[gone] = min(loss, _BROKEN)
    return {
        group: Curve(tuple(sorted(each)), tuple(each[n] for n in sorted(each)))
        for group, each in points.items()
    }


def _group(graph: Graph, layer: int, part: str) -> str | None:
    for kind in KINDS.get(part, ()):
        groups = [g for g in graph.of_kind(kind) if g.layer == layer and g.prunable]
        if groups:
            return groups[0].id if len(groups) == 1 else None
    return None
