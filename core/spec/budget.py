"""Budgets: what the pruned model may take at most, such as `params=100M,size=8GiB@q4_0`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from core.errors import SpecError
from core.spec.checks import check_name

#: What a budget may be of -> how people call it.
QUANTITIES = {
    "params": "parameters",
    "size": "weights in memory or on disk",
    "macs": "multiply-adds per token",
    "kv": "key-value cache per token",
}
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
_BYTES = {
    **{"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12},
    **{"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40},
}
_SHAPE = re.compile(r"([a-z_]+)=(-?)(\d+(?:\.\d+)?)\s*([a-zA-Z]*|%)(?:@(\w+))?")
_EXAMPLES = "write params=100M, params=-20%, size=8GiB@q4_0, macs=-30% or kv=-50%, several with commas"


@dataclass(frozen=True)
class Packing:
    """How many bits a number of a matrix takes; in blocks of so many, whole ones of which rows consist."""

    bits: float
    block: int = 1


#: Names of packings as in GGUF. A block holds its scale (and minimum) in 16 bits each.
PACKINGS = {
    **{name: Packing(bits) for name, bits in (("f32", 32.0), ("f16", 16.0), ("bf16", 16.0))},
    "q8_0": Packing(8.5, 32),
    "q5_1": Packing(6.0, 32),
    "q5_0": Packing(5.5, 32),
    "q4_1": Packing(5.0, 32),
    "q4_0": Packing(4.5, 32),
}


@dataclass(frozen=True)
class Budget:
    """The most of a quantity that the pruned model may take.

    Attributes:
        text: as it was given; quantity: of `QUANTITIES`.
        amount: a number, or bytes; or, where `of_dense`, the share of what the dense model takes.
        packing: of `PACKINGS`, for sizes.
    """

    text: str
    quantity: str
    amount: float
    of_dense: bool = False
    packing: str = "f16"

    def most(self, dense: float) -> float:
        """The amount, for a model that takes this much."""
        return self.amount * dense if self.of_dense else self.amount


def budgets_of(text: str) -> tuple[Budget, ...]:
    """Read `params=100M,kv=-50%`. Raises SpecError, also where two are of one quantity."""
    budgets = tuple(_budget(part.strip()) for part in text.split(",") if part.strip())
    named: dict[str, Budget] = {}
    for budget in budgets:
        other = named.setdefault(budget.quantity, budget)
        if other is not budget:
            raise SpecError(
                f"target has two budgets of {budget.quantity}, {other.text} and {budget.text}; keep one."
            )
    return budgets


def _budget(text: str) -> Budget:
    read = _SHAPE.fullmatch(text)
    if read is None:
        raise SpecError(f"target must be a quantity with what it may be at most, got {text!r}; {_EXAMPLES}.")
    quantity, minus, number, unit, packing = read.groups()
    check_name("target", quantity, list(QUANTITIES))
    if packing is not None and quantity != "size":
        raise SpecError(f"target {text}: only a size has a packing; write {text.partition('@')[0]}.")
    if packing is not None:
        check_name("packing of a size", packing, list(PACKINGS))
    packing = packing or Budget.packing
    if unit == "%":
        share = (100 - float(number) if minus else float(number)) / 100
        if not 0 < share < 1:
            raise SpecError(f"target {text} leaves {share:.0%} of the dense model; write -30% for 30 % less.")
        return Budget(text, quantity, share, True, packing)
    units = _BYTES if quantity in ("size", "kv") else _COUNTS
    if minus or unit.lower() not in units or float(number) == 0:
        wanted = "GiB, MiB, KiB, GB, MB, kB, B" if units is _BYTES else "k, M, B, T"
        raise SpecError(
            f"target {text} must be an amount above 0 in {wanted}, or a change in percent; {_EXAMPLES}."
        )
    return Budget(text, quantity, float(number) * units[unit.lower()], False, packing)


def check_target(given: Any) -> Any:
    """Return `given` if it is a list of budgets, or empty. Raises SpecError."""
    if isinstance(given, str):
        budgets_of(given)
    return given


def typed(budget: Budget, amount: float, *, up: bool = False) -> str:
    """An amount of a budget's quantity as it may be typed, in four digits; `up` rounds it upwards."""
    units = _BYTES if budget.quantity in ("size", "kv") else _COUNTS
    names = ("GiB", "MiB", "KiB", "B") if units is _BYTES else ("T", "B", "M", "k", "")
    name = next((each for each in names if amount >= units[each.lower()]), names[-1])
    scaled = amount / units[name.lower()]
    step = 10 ** (len(str(int(scaled))) - 4)
    scaled = (math.ceil(scaled / step) if up else round(scaled / step)) * step
    at = f"@{budget.packing}" if budget.packing != Budget.packing else ""
    return f"{budget.quantity}={scaled:.10g}{name}{at}"
