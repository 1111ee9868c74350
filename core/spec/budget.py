"""Budgets: what the pruned model may take at most, as `params=100M,size=8GiB@q4_0,latency=30ms@1x128`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
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
    "latency": "time to read prompts, and to write on",
}
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
#: Units of memory in small letters -> bytes.
BYTES = {
    **{"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12},
    **{"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40},
}
_TIMES = {"us": 1e-3, "ms": 1.0, "s": 1e3}  # in milliseconds
#: What is more than this of the dense model is no budget in percent any more.
_LESS = 0.999
#: Between these a number of a unit is read easily.
_READABLE = 0.1, 10_000
_SHAPE = re.compile(r"([a-z_]+)=(-?)(\d+(?:\.\d+)?)\s*([a-zA-Z]*|%)(?:@([\w+]+))?")
_READS = re.compile(r"(\d+)x(\d+)(?:\+(\d+))?")
_EXAMPLES = (
    "write params=100M, params=-20%, size=8GiB@q4_0, macs=-30%, kv=-50% or latency=30ms@1x128, several with "
    "commas"
)


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
class Reads:
    """What is timed: so many prompts at once, of so many tokens each, and so many tokens written to each."""

    batch: int = 1
    tokens: int = 128
    new: int = 0

    def __str__(self) -> str:
        return f"{self.batch}x{self.tokens}" + (f"+{self.new}" if self.new else "")

    @property
    def words(self) -> str:
        """For people."""
        prompts = "a prompt" if self.batch == 1 else f"{self.batch} prompts"
        return f"reading {prompts} of {self.tokens:,} tokens" + (
            f" and writing {self.new:,}" if self.new else ""
        )


@dataclass(frozen=True)
class Budget:
    """The most of a quantity that the pruned model may take.

    Attributes:
        text: as it was given; quantity: of `QUANTITIES`.
        amount: a number, or bytes; or, where `of_dense`, the share of what the dense model takes.
        packing: of `PACKINGS`, for sizes; reads: what is timed, for a latency, whose amount is in ms.
    """

    text: str
    quantity: str
    amount: float
    of_dense: bool = False
    packing: str = "f16"
    reads: Reads = Reads()

    def most(self, dense: float) -> float:
        """The amount, for a model that takes this much."""
        return self.amount * dense if self.of_dense else self.amount

    @property
    def plain(self) -> str:
        """What was asked for, without its quantity and what stands after the @: `110M`, `-20%`."""
        return self.text.partition("=")[2].partition("@")[0]

    @property
    def unit(self) -> str:
        """As it was given: `M`, `MiB`, `ms`, `%`, or nothing."""
        return self.plain.lstrip("-0123456789. ")


def budgets_of(text: str) -> tuple[Budget, ...]:
    """Read `params=100M,kv=-50%`. Raises SpecError, also where two are of one quantity."""
    budgets = tuple(_budget(part.strip()) for part in text.split(",") if part.strip())
    if text.strip() and not budgets:
        raise SpecError(f"target must name a quantity, got {text!r}; {_EXAMPLES}.")
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
    quantity, minus, number, unit, after = read.groups()
    check_name("target", quantity, list(QUANTITIES))
    packing, reads = _after_at(text, quantity, after)
    if unit == "%":
        share = (100 - float(number) if minus else float(number)) / 100
        if not 0 < share < 1:
            raise SpecError(f"target {text} leaves {share:.0%} of the dense model; write -30% for 30 % less.")
        return Budget(text, quantity, share, True, packing, reads)
    units, wanted, _ = _units(quantity)
    if minus or unit.lower() not in units or float(number) == 0:
        raise SpecError(
            f"target {text} must be an amount above 0 in {wanted}, or a change in percent; {_EXAMPLES}."
        )
    return Budget(text, quantity, float(number) * units[unit.lower()], False, packing, reads)


def _units(quantity: str) -> tuple[Mapping[str, float], str, tuple[str, ...]]:
    """Units of a quantity with what each stands for, those to name, and those to write in, large first."""
    if quantity == "latency":
        return _TIMES, "ms or s", ("s", "ms", "us")
    if quantity in ("size", "kv"):
        return BYTES, "GiB, MiB, KiB, GB, MB, kB, B", ("GiB", "MiB", "KiB", "B")
    return _COUNTS, "k, M, B, T", ("T", "B", "M", "k", "")


def _after_at(text: str, quantity: str, after: str | None) -> tuple[str, Reads]:
    """How a size is packed and what is timed, as far as that stands after the @. Raises SpecError."""
    if after is not None and quantity not in ("size", "latency"):
        raise SpecError(
            f"target {text}: only a size has a packing, and a latency what is read; write "
            f"{text.partition('@')[0]}."
        )
    if after is None:
        return Budget.packing, Reads()
    if quantity == "size":
        check_name("packing of a size", after, list(PACKINGS))
        return after, Reads()
    read = _READS.fullmatch(after)
    if read is None or "0" in (read[1], read[2]):
        raise SpecError(
            f"target {text}: a latency is of prompts x tokens, and of tokens written if any; write "
            "latency=30ms@1x128 or latency=2s@1x128+64."
        )
    return Budget.packing, Reads(*(int(number or 0) for number in read.groups()))


def check_target(given: Any) -> Any:
    """Return `given` if it is a list of budgets, or empty. Raises SpecError."""
    if isinstance(given, str):
        budgets_of(given)
    return given


def typed(budget: Budget, amount: float, *, up: bool = False, dense: float = 0.0) -> str:
    """An amount of a budget's quantity as it may be typed, in the unit of the budget and in four digits.

    Args:
        up: round it upwards; dense: what the dense model takes, for budgets in percent of that.
    """
    if dense and budget.of_dense and (not up or amount < _LESS * dense):
        return f"{budget.quantity}={_in_percent(budget, amount / dense, up)}{_after(budget)}"
    units, _, names = _units(budget.quantity)
    name = next((each for each in names if amount >= units[each.lower()]), names[-1])
    own = budget.unit and units.get(budget.unit.lower())
    if own and _READABLE[0] <= amount / own < _READABLE[1]:
        name = budget.unit
    scaled = amount / units[name.lower()]
    step = 10 ** (len(str(int(scaled))) - 4)
    scaled = (math.ceil(scaled / step) if up else round(scaled / step)) * step
    return f"{budget.quantity}={scaled:.10g}{name}{_after(budget)}"


def _after(budget: Budget) -> str:
    if budget.quantity == "latency":
        return f"@{budget.reads}"
    return f"@{budget.packing}" if budget.packing != Budget.packing else ""


def _in_percent(budget: Budget, share: float, up: bool) -> str:
    """A share of what the dense model takes as the budget says it: what is left, or what goes."""
    more = 100 * (share - 1 if budget.plain.startswith("-") else share)
    tenths = math.ceil(10 * more - 1e-9) if up else round(10 * more)
    return f"{tenths / 10:{'+' if budget.plain.startswith('-') else ''}.10g}%"


def answer(budget: Budget, left: float, dense: float) -> str:
    """What is left of a budget's quantity for people, in the unit that was asked for, then that itself.

    `params=109.9M of 134.5M, at most 110M asked for`, `params=-20.3% (107.2M of 134.5M), -20% asked for`.
    """
    now, was = (typed(budget, value).partition("=")[2].partition("@")[0] for value in (left, dense))
    if budget.of_dense:
        return f"{typed(budget, left, dense=dense)} ({now} of {was}), {budget.plain} asked for"
    return f"{budget.quantity}={now}{_after(budget)} of {was}, at most {budget.plain} asked for"


def latency_of(target: str) -> Budget | None:
    """The budget of time among these, which holds on a machine that was timed."""
    return next((budget for budget in budgets_of(target) if budget.quantity == "latency"), None)


def without_latency(target: str) -> str:
    """The other budgets, which hold on every machine."""
    return ",".join(budget.text for budget in budgets_of(target) if budget.quantity != "latency")
