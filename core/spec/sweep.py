"""What a sweep is asked to vary."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from core.checked import checked
from core.errors import SpecError
from core.option import option
from core.spec.checks import check_sparsity, parse_shares
from core.spec.choices import RECONSTRUCTIONS, SCOPES
from core.spec.depth import check_drop, drop_entries, parse_drops
from core.spec.recommended import RECOMMENDED, USUAL, Recipe

#: More is a mistake, not a wish: weeks on a CPU.
MOST_POINTS = 2000
_AS_OF_EACH = "As recommended for each method, see `prune`"


@checked
class SweepSpec:
    """The values on every axis of a sweep; every combination is a point."""

    methods: tuple[str, ...] = option(
        (RECOMMENDED, "taylor_first", "random"),
        "What ranks units, with commas; see `methods`.",
        title="Methods",
    )
    sparsities: tuple[float, ...] = option(
        (0.1, 0.2, 0.4),
        "Fractions that go, as 0.2 or 20 %, with commas.",
        title="Sparsities",
        wanted="numbers below 1, such as 0.2 or 20 %",
        parse=parse_shares,
    )
    scopes: tuple[str, ...] = option(
        (RECOMMENDED,),
        "How targets are spread.",
        title="Scopes",
        choices={RECOMMENDED: _AS_OF_EACH, **SCOPES},
    )
    reconstruct: tuple[str, ...] = option(
        (RECOMMENDED,),
        "How what stays is refitted.",
        title="Refit what stays",
        choices={RECOMMENDED: _AS_OF_EACH, **RECONSTRUCTIONS},
        flag="--reconstructs",
    )
    seeds: tuple[int, ...] = option((0,), "Seeds of every random choice, with commas.", title="Seeds", ge=0)
    samples: tuple[int, ...] = option(
        (16,), "Windows of calibration text, with commas.", title="Windows of text", ge=1
    )
    drops: tuple[str, ...] = option(
        ("",),
        "Whole blocks that go first, with commas: none, layer=2, or layer=1+ffn_block=2. They count towards "
        "the sparsity, so points of one sparsity compare depth with width.",
        title="Whole blocks that go",
        default_text="none",
        wanted="texts such as none, layer=2 or layer=1+ffn_block=2",
        parse=parse_drops,
        write=drop_entries,
    )

    def __post_init__(self) -> None:
        for axis, values in self.axes.items():
            if not values:
                raise SpecError(f"{axis} is empty; give at least one value, several separated by commas.")
            if len(set(values)) < len(values):
                raise SpecError(f"{axis} names a value twice: {', '.join(map(str, values))}; give each once.")
        for value in self.sparsities:
            check_sparsity(value)
        for drop in self.drops:
            check_drop(drop)
        if self.points > MOST_POINTS:
            raise SpecError(
                f"This sweep has {self.points:,} points; give fewer values, {MOST_POINTS:,} at most."
            )

    @property
    def axes(self) -> dict[str, tuple[object, ...]]:
        """The values on each axis, by its name."""
        return dict(self.__dict__)

    def settled(self, *, unseen: bool = False) -> SweepSpec:
        """The same, without the refits that are recommended where what matrices read cannot be watched."""
        if not unseen:
            return self
        named = (USUAL[1] if refit == RECOMMENDED else refit for refit in self.reconstruct)
        return replace(self, reconstruct=tuple(dict.fromkeys(named)))

    def recipes(self, *, lent: bool = False) -> list[Recipe]:
        """Every way to prune, each once and by name; `lent`: see `Recipe.settled`."""
        ways = itertools.product(self.methods, self.scopes, self.reconstruct)
        return list(dict.fromkeys(Recipe(*way).settled(lent=lent) for way in ways))

    @property
    def points(self) -> int:
        """How many combinations there are."""
        return math.prod(map(len, self.axes.values()))
