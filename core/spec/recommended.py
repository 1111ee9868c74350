"""What is taken where nothing else is said: `recommended`, and why. It follows what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

#: Stands for a method, a scope or a refit until it is known what is recommended.
RECOMMENDED = "recommended"
#: The best of all that does not train; where no gradient is read; and where every matrix is scored by itself.
BEST, FORWARD, ALONE = "taylor_second", "ifv", "taylor_first"
#: FLAP's scope, which only criteria of activations have.
AL_AM = "al_am"
#: Scope and refit of the best one, where nobody asks for it by name: its paper has the usual ones.
BEST_WITH = ("global", "bias")
#: Method -> scope and refit as its paper has them; of the others `USUAL`.
RECOMMENDED_FOR = {
    **dict.fromkeys((FORWARD, "wifv", "wifn"), (AL_AM, "bias")),
    "alternate_layers": ("raw", "none"),
}
USUAL = ("local", "none")
TABLE = "docs/measured.md, What keeps more of it"


def with_best(methods: Iterable[str], *, lent: bool = False) -> tuple[str, ...]:
    """Methods with a name in the place of `recommended`, each once; `lent`: see `Recipe.settled`."""
    best = FORWARD if lent else BEST
    return tuple(dict.fromkeys(best if name == RECOMMENDED else name for name in methods))


class Recipe(NamedTuple):
    """A way to prune: the method, how the target is spread, what is refitted."""

    method: str
    scope: str
    refit: str

    def settled(
        self, *, unseen: bool = False, alone: bool = False, unbiased: bool = False, lent: bool = False
    ) -> Recipe:
        """The same with a name in the place of every `recommended`.

        Args:
            unseen: what matrices read cannot be watched in this model: experts that lie in one stack.
            alone: every matrix is cut by its own scores.
            unbiased: what is cut shall get no biases.
            lent: weights rest elsewhere and get no gradients.
        """
        (method,) = (
            (ALONE,)
            if self.method == RECOMMENDED and alone
            else with_best([self.method], lent=lent or self.scope == AL_AM)
        )
        best = method == BEST != self.method
        scope, refit = BEST_WITH if best else RECOMMENDED_FOR.get(method, USUAL)
        refit = USUAL[1] if unbiased or unseen or alone else refit
        return Recipe(
            method,
            scope if self.scope == RECOMMENDED else self.scope,
            refit if self.refit == RECOMMENDED else self.refit,
        )

    def because(
        self, *, unseen: bool = False, alone: bool = False, unbiased: bool = False, lent: bool = False
    ) -> str:
        """What is recommended in this one's place, with the reason; empty where nothing was left open."""
        chosen = self.settled(unseen=unseen, alone=alone, unbiased=unbiased, lent=lent)
        if self.method != RECOMMENDED:
            return self._as_in_paper(chosen)
        refit = "no refit" if chosen.refit == "none" else f"refit {chosen.refit}"
        return f"{chosen.method}, scope {chosen.scope}, {refit}, because {self._reason(chosen)}"

    def _as_in_paper(self, chosen: Recipe) -> str:
        """What was left open and now is as the method's paper has it, and nothing that somebody chose."""
        scope, refit = RECOMMENDED_FOR.get(self.method, ("", ""))
        parts = [f"scope {scope}"] if self.scope == RECOMMENDED and scope else []
        if self.refit == RECOMMENDED and chosen.refit == refit != "none":
            parts.append(f"refit {refit}")
        return f"{', '.join(parts)}, because that is how the paper of {self.method} has it" if parts else ""

    def _reason(self, chosen: Recipe) -> str:
        if chosen.method == ALONE:
            return "it scores every matrix by itself, which is what is compared here"
        if chosen.method == FORWARD:
            if self.scope == AL_AM:
                return f"it is the best that scope {AL_AM} can rank by (docs/measured.md, Without training)"
            return f"{BEST} reads gradients, which weights that rest elsewhere do not get"
        if chosen != (BEST, *BEST_WITH):
            return f"{BEST} was the best criterion of all that does not train ({TABLE})"
        return (
            "all that does not train keeps fewer right answers; heads and FFN channels go by their worth per "
            f"parameter, and biases, nearly free, stand in for what they gave ({TABLE})"
        )
