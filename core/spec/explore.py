"""Which analyses an exploring run makes."""

from __future__ import annotations

from typing import Any, Literal

from core.checked import checked
from core.option import option
from core.spec.checks import check_tau, parse_shares, require
from core.spec.recommended import RECOMMENDED
from core.spec.settings import own_options

Analysis = Literal["groups", "similarity", "scores", "sensitivity"]
ANALYSES: tuple[Analysis, ...] = ("groups", "similarity", "scores", "sensitivity")
SENSITIVITY_KINDS = ("attention", "ffn", "both", "head")
#: Divergence below which two heads count as the same, unless somebody says otherwise.
TAU = 0.2


#: Settings of an exploring run that take no gradient, where no weight gets any.
FORWARD_ONLY: dict[str, Any] = {
    "criteria": (RECOMMENDED, "wanda", "l2", "l1", "random"),
    "sensitivity_criterion": "wifv",
}


@checked
class ExploreSpec:
    """Which analyses an exploring run makes, and with what."""

    analyses: tuple[Analysis, ...] = option(
        ANALYSES, "Analyses to make.", choices=ANALYSES, nonempty=True, default_text="all"
    )
    criteria: tuple[str, ...] = option(
        (RECOMMENDED, "taylor_first", "l2", "l1", "random"),
        "A criterion to score with, side by side with others in one pass; may be repeated. See `methods`.",
        title="Criteria to score with",
        nonempty=True,
        flag="--criterion",
        repeated=True,
    )
    sensitivity_kinds: tuple[str, ...] = option(
        ("attention", "ffn"),
        "What of a layer is pruned; head: every head alone.",
        title="Part of the layer that is pruned",
        choices=SENSITIVITY_KINDS,
        nonempty=True,
        flag="--of",
    )
    sensitivity_ratios: tuple[float, ...] = option(
        (0.5,),
        "Shares of one layer's units removed, as 0.5 or 50 %, one point for each, with commas.",
        title="Share that goes",
        gt=0,
        le=1,
        nonempty=True,
        flag="--ratio",
        called="ratio",
        parse=parse_shares,
    )
    sensitivity_criterion: str = option(
        "taylor_first",
        "What picks the units that --ratio removes.",
        title="Units chosen by",
        flag="--ratio-by",
        metavar="CRITERION",
    )
    sensitivity_tokens: int = option(
        1024,
        "Tokens of perplexity per point.",
        title="Tokens per point",
        ge=8,
        unit="tokens",
        flag="--ratio-tokens",
        called="ratio-tokens",
    )
    tau: float = option(
        TAU, "Heads closer than this distance say the same, in [0, 1].", ge=0, le=1, check=check_tau
    )
    options: dict[str, Any] = own_options("An option of the criteria's own, for each that has it")
    config_only: bool = option(False, "Find the groups from the config alone; no weights are read.")

    def __post_init__(self) -> None:
        alone = not self.config_only or self.analyses == ("groups",)
        require(alone, "analyses", list(self.analyses), "groups alone where only the config is read")
