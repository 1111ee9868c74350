"""Which settings of a pruning go together."""

from __future__ import annotations

from typing import Any

from core.spec.budget import latency_of
from core.spec.checks import check_kind_sparsity, require
from core.spec.choices import RECHOOSING, SEARCHED
from core.spec.depth import drops_of
from core.spec.units import MANUAL, units_entries


def check_together(asked: Any) -> None:
    """Raises SpecError for a setting of this `PruneSpec` that another one excludes, with what would do."""
    wanted = "a method that ranks units, or manual with the units that go"
    got = f"{asked.method} with {' '.join(units_entries(asked.units)) or 'no units'}"
    require((asked.method == MANUAL) == bool(asked.units), "method", got, wanted)
    both = {"query_head", "kv_group"} <= set(asked.kinds)
    wanted = "either query_head or kv_group, since both own the same heads"
    require(not both, "kinds", list(asked.kinds), wanted)
    within = asked.scope != SEARCHED or "residual_channel" not in asked.kinds
    wanted = "another than searched where hidden channels go, which run through all layers"
    require(within, "scope", asked.scope, wanted)
    ragged = asked.scope != SEARCHED or not (asked.uniform or asked.uniform_heads)
    require(ragged, "scope", asked.scope, "another than searched where layers are to end alike")
    check_kind_sparsity(asked.kind_sparsity, asked.kinds)
    timed = "residual_channel" not in asked.kinds or latency_of(asked.target) is None
    wanted = "other kinds where a latency is asked for, since hidden channels are not timed; or macs=-30%"
    require(timed, "kinds", list(asked.kinds), wanted)
    alone = not (asked.target and asked.kind_sparsity)
    require(alone, "target", asked.target, "left out where kinds have sparsities of their own")
    bound = asked.max_share == 1 or asked.reconstruct not in RECHOOSING
    require(bound, "max_share", asked.max_share, f"1 with {asked.reconstruct}, which chooses units again")
    alike = asked.uniform or asked.uniform_heads
    wanted = "all, where layers are to end alike"
    require(not alike or asked.layers is None, "layers", asked.layers, wanted)
    free = not alike or asked.reconstruct not in RECHOOSING
    wanted = f"left out with {asked.reconstruct}, which chooses units again"
    require(free, "uniform", alike, wanted)
    whole = not (asked.drop and (asked.units or asked.kind_sparsity or asked.without_dependency))
    wanted = "left out with units chosen by hand, targets per kind, or couplings left out"
    require(whole, "drop", asked.drop, wanted)
    chosen = asked.reconstruct in RECHOOSING or asked.scope == SEARCHED
    wanted = "left out with scope searched and refits that choose units again"
    require(not (drops_of(asked.drop) and chosen), "drop", asked.drop, wanted)
    ranked = not (asked.without_dependency and asked.units)
    require(ranked, "without_dependency", True, "left out where units are chosen by hand")
