"""How much goes, of what, and by which method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from core.spec.checks import (
    check_kind_sparsity,
    check_name,
    check_sparsity,
    parse_layers,
)
from core.spec.checks import require as _require
from core.spec.checks import require_whole as _require_whole
from core.spec.units import MANUAL, checked_units, units_entries

#: Unit kinds a plan may cut. `attention` kinds exclude each other: both own the same query heads.
KINDS = ("ffn_channel", "query_head", "kv_group", "residual_channel")

#: How a target is spread: evenly, by value per parameter, or by how a unit stands out in its group.
SCOPES = ("local", "global", "standardised", "raw")

#: What is done about the error that pruning makes, without training.
RECONSTRUCTIONS = ("none", "bias", "least_squares", "pre_pruning")

#: Those which put part of what they find into a bias, also where the dense model has none.
BIASED = ("bias", "least_squares", "pre_pruning")

#: LLM-Pruner's two ways (Section 3.1): blocks lose heads and channels of their own, or all lose the same
#: hidden channels.
STRATEGIES = {"block": ("query_head", "ffn_channel"), "channel": ("residual_channel",)}


@dataclass(frozen=True)
class PruneSpec:
    """How much goes, of what, and by which method.

    Attributes:
        method: a registered method or criterion, e.g. `taylor_first`.
        sparsity: fraction of the parameters in the prunable groups in scope, in [0, 1).
        scope: how the target is spread; `local` = the same fraction of every group.
        kinds: the unit kinds in scope.
        layers: `first:last` as in a Python slice (last not included), a name of `LAYER_PRESETS`, or None
            for all layers.
        options: the method's own options.
        units: group id -> units that go, where they were chosen by hand. `method` is then `manual`, and
            sparsity, scope, kinds and layers follow from them.
        kind_sparsity: kind -> its own target; kinds without one take `sparsity`.
        multiple: widths of channels that lose some are whole multiples of it; heads are left as heads.
        reconstruct: how what stays is refitted without training, one of `RECONSTRUCTIONS`.
        without_dependency: an ablation: cut every matrix by its own scores, measure, save no model.
    """

    method: str = "taylor_first"
    sparsity: float = 0.2
    scope: str = "local"
    kinds: tuple[str, ...] = ("query_head", "ffn_channel")
    layers: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    units: dict[str, tuple[int, ...]] = field(default_factory=dict)
    kind_sparsity: dict[str, float] = field(default_factory=dict)
    multiple: int = 1
    reconstruct: str = "none"
    without_dependency: bool = False

    @property
    def biased(self) -> bool:
        """Whether what is cut gets biases."""
        return self.reconstruct in BIASED

    def allocation(self) -> dict[str, Any]:
        """What `core.plan.allocation.allocate` is to do, by the names of its arguments."""
        names = ("sparsity", "scope", "kinds", "layers", "kind_sparsity", "multiple", "biased")
        return {name: getattr(self, name) for name in names}

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", checked_units(self.units))
        wanted = "a method that ranks units, or manual with the units that go"
        got = f"{self.method} with {' '.join(units_entries(self.units)) or 'no units'}"
        _require((self.method == MANUAL) == bool(self.units), "method", got, wanted)
        check_sparsity(self.sparsity)
        _require(isinstance(self.options, dict), "options", self.options, "an object: option -> value")
        check_name("scope", self.scope, SCOPES)
        check_name("reconstruct", self.reconstruct, RECONSTRUCTIONS)
        _require_whole("multiple", self.multiple, 1)
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        _require(not unknown and bool(self.kinds), "kinds", list(self.kinds), f"some of {', '.join(KINDS)}")
        _require(
            not {"query_head", "kv_group"} <= set(self.kinds),
            "kinds",
            list(self.kinds),
            "either query_head or kv_group, since both own the same heads",
        )
        check_kind_sparsity(self.kind_sparsity, self.kinds)
        ranked = not (self.without_dependency and self.units)
        _require(ranked, "without_dependency", True, "left out where units are chosen by hand")
        if self.layers is not None:
            parse_layers(self.layers)
