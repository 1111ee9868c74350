"""Which analyses an exploring run makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from core.spec.checks import (
    check_name,
    check_tau,
    is_number,
)
from core.spec.checks import require as _require
from core.spec.checks import require_whole as _require_whole

Analysis = Literal["groups", "similarity", "scores", "sensitivity"]

ANALYSES: tuple[Analysis, ...] = ("groups", "similarity", "scores", "sensitivity")

SENSITIVITY_KINDS = ("attention", "ffn", "both", "head")


@dataclass(frozen=True)
class ExploreSpec:
    """Which analyses an exploring run makes, and with what.

    Attributes:
        criteria: scored side by side in one pass.
        sensitivity_kinds: what of a layer is pruned, some of `SENSITIVITY_KINDS`; `head` is every head alone.
        sensitivity_ratios: fractions of one layer's units that are removed, one point for each.
        sensitivity_criterion: which criterion picks those units.
        sensitivity_tokens: evaluation tokens per point, in windows of `EvalSpec.window`.
        options: the criteria's own options; each goes to every criterion that has it.
        config_only: find the groups from the config alone; no weights are read.
    """

    analyses: tuple[Analysis, ...] = ANALYSES
    criteria: tuple[str, ...] = ("taylor_first", "l2", "l1", "random")
    sensitivity_kinds: tuple[str, ...] = ("attention", "ffn")
    sensitivity_ratios: tuple[float, ...] = (0.5,)
    sensitivity_criterion: str = "taylor_first"
    sensitivity_tokens: int = 1024
    tau: float = 0.2
    options: dict[str, Any] = field(default_factory=dict)
    config_only: bool = False

    def __post_init__(self) -> None:
        _require(isinstance(self.options, dict), "options", self.options, "an object: option -> value")
        unknown = [name for name in self.analyses if name not in ANALYSES]
        wanted = f"some of {', '.join(ANALYSES)}"
        _require(not unknown and bool(self.analyses), "analyses", list(self.analyses), wanted)
        _require(bool(self.criteria), "criteria", list(self.criteria), "at least one criterion")
        check_tau(self.tau)
        for kind in self.sensitivity_kinds or ("",):
            check_name("sensitivity_kinds", kind, SENSITIVITY_KINDS)
        _require(bool(self.sensitivity_ratios), "sensitivity_ratios", [], "at least one number in (0, 1]")
        for ratio in self.sensitivity_ratios:
            _require(is_number(ratio) and 0 < ratio <= 1, "sensitivity_ratios", ratio, "numbers in (0, 1]")
        _require_whole("sensitivity_tokens", self.sensitivity_tokens, 8)
        alone = not self.config_only or self.analyses == ("groups",)
        _require(alone, "analyses", list(self.analyses), "groups alone where only the config is read")
