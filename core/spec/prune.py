"""How much goes, of what, and by which method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from core.checked import checked
from core.option import option, options_of
from core.spec.budget import check_target
from core.spec.checks import (
    check_layers,
    check_sparsity,
    check_targets,
    kind_sparsity_entries,
    multiple_entries,
    parse_kind_sparsity,
    parse_multiple,
    parse_share,
    parse_sparsity,
)
from core.spec.choices import BIASED, KINDS, RECONSTRUCTIONS, SCOPES
from core.spec.depth import BY, check_drop
from core.spec.prune_together import check_together
from core.spec.recommended import ALONE, BEST, FORWARD, RECOMMENDED, Recipe
from core.spec.settings import own_options
from core.spec.units import Units, checked_units, parse_units, units_entries

_WHICH = (
    f"{RECOMMENDED} is {{}} where the method is left open; of a named one as in its paper, {{}} for ifv, "
    "wifv and wifn, {} for most others."
)


@checked
class PruneSpec:
    """How much goes, of what, and by which method.

    Where units are chosen by hand, `method` is `manual`; sparsity, scope, kinds and layers follow from them.
    """

    method: str = option(
        RECOMMENDED,
        f"What ranks units, or trains; see `methods`. {RECOMMENDED} is {BEST}, with its scope and refit the "
        f"best that does not train, {FORWARD} where weights rest elsewhere or for scope al_am, and {ALONE} "
        "without couplings.",
        title="Method",
    )
    sparsity: float = option(
        0.2,
        "Fraction of the block parameters that goes, as 0.2 or 20 %; of a pruned MODEL, of those left.",
        title="Sparsity",
        ge=0,
        lt=1,
        check=check_sparsity,
        parse=parse_sparsity,
        allocates=True,
    )
    scope: str = option(
        RECOMMENDED,
        "Take the same share of every layer, or more where it matters less: al_am is FLAP's way (with ifv, "
        "wifv, wifn or wanda), standardised one like it for every criterion, best with a target per kind; "
        "searched measures the loss. " + _WHICH.format("global", "al_am", "local"),
        title="How the target is spread",
        choices={RECOMMENDED: "As recommended for the method", **SCOPES},
        ranking=True,
        allocates=True,
    )
    kinds: tuple[str, ...] = option(
        ("query_head", "ffn_channel"),
        "Kinds of units that a plan may remove.",
        title="What may go",
        choices=KINDS,
        nonempty=True,
        allocates=True,
    )
    layers: str | None = option(
        None,
        "FIRST:LAST, counted from 0, LAST not included, an end may be left out. LLM-Pruner's 20 % is 4:30 "
        "at sparsity 0.25, its 50 % is 3:31 at 0.6.",
        title="Layers",
        default_text="all",
        check=check_layers,
        wanted="first:last, or all",
        metavar="FIRST:LAST",
        allocates=True,
    )
    options: dict[str, Any] = own_options("An option of the method's or criterion's own")
    units: Units = option(
        dict,
        "Remove exactly these units instead of ranking: L03.query_head=0-3,7. May be repeated.",
        title="Units that go",
        default_text="none",
        check=checked_units,
        metavar="GROUP=UNITS",
        repeated=True,
        parse=parse_units,
        write=units_entries,
    )
    kind_sparsity: dict[str, float] = option(
        dict,
        "A target of its own for a kind, in the place of the sparsity: ffn_channel=0.3.",
        title="Sparsity of single kinds",
        default_text="none",
        check=check_targets,
        metavar="KIND=S,...",
        repeated=True,
        parse=parse_kind_sparsity,
        write=kind_sparsity_entries,
        allocates=True,
    )
    target: str = option(
        "",
        "What the pruned model may take at most, in the place of a sparsity: params=100M, size=8GiB@q4_0, "
        "macs=-30%, kv=-50%, latency=30ms@1x128, several with commas. Sizes are at 16 bits, or as a GGUF "
        "packs them. A latency is of prompts x tokens, 1x128+64 with 64 written to each; the run times this "
        "machine first.",
        title="Budget, in the place of the sparsity",
        default_text="none, the sparsity counts",
        check=check_target,
        wanted="params, size, macs, kv or latency with what it may be at most",
        metavar="QUANTITY=AMOUNT,...",
        ranking=True,
        allocates=True,
    )
    multiple: int = option(
        1,
        "Keep FFN and hidden channels in whole multiples (none: any number): 32 for blocks of Q8_0 and Q4_0, "
        "256 for K-quants, 64 or 128 for tensor cores. Heads are whole anyway.",
        title="Widths in multiples of",
        ge=1,
        examples=(1, 32, 64, 128, 256),
        flag="--align",
        called="align",
        parse=parse_multiple,
        write=multiple_entries,
        wanted="none, or a whole number from 1 up",
        allocates=True,
    )
    uniform_heads: bool = option(
        False,
        "Keep equally many query heads of every key-value head in every layer, as servers such as vLLM want "
        "them; the target is met more coarsely.",
        title="The same heads in every layer",
        flag="--uniform-heads/--ragged-heads",
        allocates=True,
    )
    uniform: bool = option(
        False,
        "Leave all layers alike, heads and FFN widths: an ordinary model, which every tool reads.",
        title="All layers alike",
        flag="--uniform/--ragged",
        allocates=True,
    )
    rounds: int = option(
        1,
        "Go in so many parts: score, cut and refit one, then look anew at what is left.",
        title="Rounds",
        ge=1,
        ranking=True,
    )
    search_tokens: int = option(
        1024,
        "Tokens of the calibration text on which every group's loss is measured at several widths, for scope "
        "searched; plans are compared on all of it. Its windows are as long as those of perplexity.",
        title="Tokens per measurement of the search",
        ge=8,
        unit="tokens",
        ranking=True,
    )
    search_rounds: int = option(
        2,
        "How often the search measures again what each group costs, around the best plan so far, and moves.",
        title="Rounds of the search",
        ge=0,
        unit="rounds",
        ranking=True,
    )
    max_share: float = option(
        1.0,
        "Largest share that one group may lose.",
        title="Most of a group",
        gt=0,
        le=1,
        parse=parse_share,
        ranking=True,
        allocates=True,
    )
    drop: str = option(
        "",
        "Whole blocks that go before anything else: layer=3, attention_block=2 or ffn_block=2, several with "
        "commas. They count towards the sparsity or the budget; units of what is left give the rest, and "
        "with sparsity 0 nothing else goes. layers says which may go.",
        title="Whole blocks that go",
        default_text="none",
        check=check_drop,
        wanted="layer, attention_block or ffn_block with how many",
        metavar="KIND=N,...",
        ranking=True,
        allocates=True,
    )
    drop_by: str = option(
        "block_influence",
        "What says which blocks are dropped, on the calibration text: block_influence is ShortGPT's, how far "
        "a block turns the hidden states, perplexity how much worse the model is without it, summed what "
        "the method says of its units.",
        title="Which blocks go",
        choices=BY,
        ranking=True,
    )
    reconstruct: str = option(
        RECOMMENDED,
        "Refit what stays on the calibration text, without training. "
        + _WHICH.format("bias", "the same", "none"),
        title="Refit what stays",
        choices={RECOMMENDED: "As recommended for the method", **RECONSTRUCTIONS},
        ranking=True,
    )
    recovery_samples: int = option(
        128,
        "Windows that pre-pruning recovery reconstructs modules on: from the calibration text, as long as "
        "those that score units. The paper takes 1,024; more of them are better, and take longer.",
        title="Windows to reconstruct on",
        ge=1,
        unit="windows",
        ranking=True,
    )
    without_dependency: bool = option(
        False,
        "An ablation: cut every matrix by its own scores, and compare; with --recover, after training, too. "
        "No model is saved.",
        title="Without couplings, to see what they are worth",
        flag="--without-dependency/--with-dependency",
    )

    def settled(self, *, unseen: bool = False, lent: bool = False) -> PruneSpec:
        """The same with what `recommended` stands for; both are of the model, see `Recipe.settled`."""
        method, scope, refit = self._recipe.settled(**self._case(unseen, lent))
        return replace(self, method=method, scope=scope, reconstruct=refit)

    def because(self, *, unseen: bool = False, lent: bool = False) -> str:
        """What is recommended, and why; empty where nothing was left open."""
        return self._recipe.because(**self._case(unseen, lent))

    @property
    def _recipe(self) -> Recipe:
        return Recipe(self.method, self.scope, self.reconstruct)

    def _case(self, unseen: bool, lent: bool) -> dict[str, bool]:
        alike = self.uniform or self.uniform_heads
        return {"unseen": unseen, "alone": self.without_dependency, "unbiased": alike, "lent": lent}

    @property
    def share(self) -> float | None:
        """The sparsity, where that says how much goes: neither units chosen by hand nor a budget do."""
        return None if self.units or self.target else self.sparsity

    @property
    def biased(self) -> bool:
        """Whether what is cut gets biases."""
        return self.reconstruct in BIASED

    def allocation(self) -> dict[str, Any]:
        """What `core.plan.allocation.allocate` is to do, by the names of its arguments."""
        return {name: getattr(self, name) for name in (*ALLOCATION, "biased")}

    def __post_init__(self) -> None:
        check_together(self)


#: Fields that say how a target is met, and so how units are ranked against each other.
ALLOCATION = tuple(name for name, declared in options_of(PruneSpec).items() if declared.allocates)
