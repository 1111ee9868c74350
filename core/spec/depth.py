"""Whole blocks that go: how many of each kind, such as `layer=3,attention_block=2`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.errors import SpecError
from core.spec.checks import check_name

#: Kinds of blocks that may be dropped, and how people call them.
DROPPED = {"layer": "layers", "attention_block": "attention blocks", "ffn_block": "feed-forward blocks"}
#: What says which of them go.
INFLUENCE, PERPLEXITY, SUMMED = "block_influence", "perplexity", "summed"
BY = {
    INFLUENCE: "Those that turn the hidden states least: ShortGPT's block influence",
    PERPLEXITY: "Those without which the loss grows least",
    SUMMED: "Those whose units are worth least together",
}
_EXAMPLE = "write layer=3, attention_block=2 or ffn_block=2, several with commas"


def drops_of(text: str, example: str = _EXAMPLE) -> dict[str, int]:
    """Read `layer=3,ffn_block=2`: kind -> how many. Raises SpecError, which ends with an example."""
    drops: dict[str, int] = {}
    for entry in filter(str.strip, text.split(",")):
        kind, _, number = (part.strip() for part in entry.partition("="))
        if not (number.isdecimal() and int(number) > 0):
            raise SpecError(f"drop takes a kind and how many, got {entry.strip()!r}; {example}.")
        check_name("drop", kind, list(DROPPED))
        if kind in drops:
            raise SpecError(f"drop names {kind} twice; {example}.")
        drops[kind] = int(number)
    return drops


#: What a sweep calls dropping nothing.
NOTHING = "none"
_SWEPT = "write none, layer=2 or layer=1+ffn_block=2, several points with commas"


def parse_drops(given: str | Sequence[str]) -> tuple[str, ...]:
    """Read `none,layer=2,layer=1+ffn_block=2`, what points of a sweep drop. Raises SpecError."""
    texts = given.split(",") if isinstance(given, str) else given
    drops = [",".join(map(str.strip, text.split("+"))) for text in map(str.strip, texts) if text]
    for drop in drops:
        drops_of("" if drop == NOTHING else drop, _SWEPT)
    return tuple("" if drop == NOTHING else drop for drop in drops)


def drop_entries(drops: Sequence[str]) -> list[str]:
    """What `parse_drops` reads as these drops, as the one text of an option."""
    return [",".join(drop.replace(",", "+") or NOTHING for drop in drops)]


def check_drop(given: Any) -> Any:
    """Return `given` if it says which blocks go, or is empty. Raises SpecError."""
    if isinstance(given, str):
        drops_of(given)
    return given
