"""What is taken where nothing else is said: `recommended`, and why. It follows what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

#: Stands for a method, a scope or a refit until it is known what is recommended.
RECOMMENDED = "recommended"
#: The best of all that does not train, and the best of those that read gradients, for models in which nobody
#: sees what matrices read: experts that lie in one stack.
BEST, UNSEEN = "ifv", "taylor_first"
#: Method -> scope and refit, as its paper has them; of the others `USUAL`.
RECOMMENDED_FOR = {
    **dict.fromkeys(("ifv", "wifv", "wifn"), ("al_am", "bias")),
    "alternate_layers": ("raw", "none"),
}
USUAL = ("local", "none")
TABLE = "docs/measured.md, Without training"


def with_best(methods: Iterable[str], *, unseen: bool) -> tuple[str, ...]:
    """Methods with a name in the place of `recommended`, each once."""
    best = UNSEEN if unseen else BEST
    return tuple(dict.fromkeys(best if name == RECOMMENDED else name for name in methods))


class Recipe(NamedTuple):
    """A way to prune: the method, how the target is spread, what is refitted."""

    method: str
    scope: str
    refit: str

    def settled(self, *, unseen: bool = False, alone: bool = False, unbiased: bool = False) -> Recipe:
        """The same with a name in the place of every `recommended`.

        Args:
            unseen: what matrices read cannot be watched in this model.
            alone: every matrix is cut by its own scores.
            unbiased: what is cut shall get no biases.
        """
        (method,) = with_best([self.method], unseen=unseen or alone)
        scope, refit = RECOMMENDED_FOR.get(method, USUAL)
        refit = USUAL[1] if unbiased or alone else refit
        return Recipe(
            method,
            scope if self.scope == RECOMMENDED else self.scope,
            refit if self.refit == RECOMMENDED else self.refit,
        )

    def because(self, *, unseen: bool = False, alone: bool = False, unbiased: bool = False) -> str:
        """What is recommended in this one's place, with the reason; empty where nothing was left open."""
        chosen = self.settled(unseen=unseen, alone=alone, unbiased=unbiased)
        if self.method != RECOMMENDED:
            return self._as_in_paper(chosen)
        refit = "no refit" if chosen.refit == "none" else f"refit {chosen.refit}"
        return f"{chosen.method}, scope {chosen.scope}, {refit}, because {self._reason(chosen, unseen)}"

    def _as_in_paper(self, chosen: Recipe) -> str:
        """What was left open and now is as the method's paper has it, and nothing that somebody chose."""
        scope, refit = RECOMMENDED_FOR.get(self.method, ("", ""))
        parts = [f"scope {scope}"] if self.scope == RECOMMENDED and scope else []
        if self.refit == RECOMMENDED and chosen.refit == refit != "none":
            parts.append(f"refit {refit}")
        return f"{', '.join(parts)}, because that is how the paper of {self.method} has it" if parts else ""

    def _reason(self, chosen: Recipe, unseen: bool) -> str:
        if chosen.method != BEST:
            where = "in a stack of experts" if unseen else "where every matrix is cut by itself"
            return f"{BEST} has to see what matrices read, which is not to be seen {where}"
        if chosen != (BEST, *RECOMMENDED_FOR[BEST]):
            return f"{BEST} was the best criterion of all that does not train ({TABLE})"
        return (
            "criterion and scope left the lowest perplexity of all that does not train, on both texts, with "
            f"heads and FFN channels, and biases, nearly free, come close to least squares ({TABLE})"
        )
