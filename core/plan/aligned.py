"""What widths cost that are no whole blocks: rows that cannot be quantised, and slower matrix products."""

from __future__ import annotations

from collections.abc import Sequence

from core.graph.records import Graph
from core.plan.cost import stored_sizes
from core.plan.records import implied

#: A packing of 8 bits and one of 4, both in blocks of 32.
_PACKINGS = ("q8_0", "q4_0")
_BLOCK = 32


def about_widths(graph: Graph, removed: dict[str, tuple[int, ...]], biases: Sequence[str] = ()) -> list[str]:
    """A note where widths are no multiples of a block: how large files are, and what would help."""
    left = [
        group.units - len(units)
        for group, units in ((graph.by_id[name], units) for name, units in implied(graph, removed).items())
        if group.kind in ("ffn_channel", "residual_channel")
    ]
    odd = [width for width in left if width % _BLOCK]
    if not odd:
        return []
    now, dense = stored_sizes(graph, removed, _PACKINGS, biases), stored_sizes(graph, {}, _PACKINGS)
    sizes = " and ".join(
        f"{now[name] / 1e6:,.0f} MB in {name} (dense {dense[name] / 1e6:,.0f})" for name in _PACKINGS
    )
    return [
        f"{len(odd)} of {len(left)} widths are no multiple of {_BLOCK}, so their rows stay in 16 bits where "
        f"others are quantised: {sizes}. --align {_BLOCK} keeps whole blocks, 64 or 128 suits tensor cores, "
        "256 K-quants, each for a coarser choice; export --to gguf fills up with zeros instead."
    ]
