"""Write numbers for people, alike everywhere: with units, signs, ages. A missing number is a dash."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.results.noise import Difference
from core.spec.evaluate import PROTOCOLS, WORKBENCH

Writer = Callable[..., str]
DASH = "–"
#: What else a run may train beside its pruned model, by what the names of its curves begin with.
BESIDE = {
    "coupled": "the cut with its couplings",
    "control": "the dense model, trained on the same text",
}


def several(number: int, thing: str) -> str:
    """`1 query head`, `1,024 query heads`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def count(value: float | None) -> str:
    """`134.5 M`, `1.2 B`, `512`."""
    if value is None:
        return DASH
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if abs(value) >= limit:
            return f"{value / limit:.4g} {unit}"
    return f"{value:,.0f}"


def sentence(text: str) -> str:
    """A sentence that stands alone, of one that follows a colon."""
    return f"{text[:1].upper()}{text[1:]}"


def size(value: float | None) -> str:
    """Bytes as `22.5 KiB`, `513 MiB`."""
    if value is None:
        return DASH
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 100 else f"{value:.3g} {unit}"
        value /= 1024
    return DASH


def perplexity(value: float | None, error: float | None = None) -> str:
    """`26.2`, `1,230`, `1.9 million`; with its standard error `26.2 ± 0.6`, `1.9 ± 0.2 million`."""
    if value is None:
        return DASH
    if not math.isfinite(value):
        return "infinite"
    if abs(value) >= 1e12:
        return f"{value:.1e}" if error is None else f"{value:.1e} ± {error:.1e}"
    scale, unit = (1e6, " million") if abs(value) >= 1e6 else (1.0, "")
    digits = 0 if scale == 1 and value >= 1000 else 2 if value < 10 else 1
    digits = 0 if error is not None and error / scale >= 10 else digits
    text = f"{value / scale:,.{digits}f}"
    return text + unit if error is None else f"{text} ± {_error(error / scale, digits)}{unit}"


def divergence(value: float | None, error: float | None = None) -> str:
    """`0.53 nats`; with its standard error `0.53 ± 0.02 nats`."""
    if value is None:
        return DASH
    return f"{value:.3f} nats" if error is None else f"{value:.3f} ± {error:.3f} nats"


def read_on(text: str, *, window: int | None, tokens: int | None, protocol: str | None = None) -> str:
    """What a perplexity is of: `wiki.txt, 16 windows of 256 tokens, 4,080 scored, Workbench's protocol`.

    Args:
        tokens: read in all, the first of every window among them; None where an old record does not say.
        protocol: a name of `PROTOCOLS`; an old record has none, and then it was the workbench's.
    """
    whose = PROTOCOLS[protocol or WORKBENCH].title if (protocol or WORKBENCH) in PROTOCOLS else protocol
    cut = f"windows of {window:,} tokens" if window else ""
    if window and tokens:
        windows = tokens // window
        cut = f"{windows:,} window{'s' * (windows != 1)} of {window:,} tokens, {tokens - windows:,} scored"
    return ", ".join(part for part in (text, cut, f"{whose}'s protocol") if part)


def measured_on(metrics: Mapping[str, Any]) -> str:
    """`read_on` of what `metrics.json` says of its perplexities; empty without any."""
    text = metrics.get("ppl_text")
    if not text:
        return ""
    name = "bundled evaluation text" if text == "bundled" else text
    window, tokens, protocol = (metrics.get(f"ppl_{key}") for key in ("window", "tokens", "protocol"))
    return read_on(name, window=window, tokens=tokens, protocol=protocol)


def calibrated_on(row: Mapping[str, Any]) -> str:
    """What chose the units: `speeches, 16 windows of 128 tokens, seed 0`, of a row of `by_text`.

    Older runs recorded the text alone. Where no text chose, or nothing went: `no text, seed 0`.
    """
    count, length = row.get("calibration_windows"), row.get("calibration_length")
    windows = f"{count:,} window{'s' * (count != 1)} of {length:,} tokens" if count and length else ""
    seed = "" if row.get("seed") is None else f"seed {row['seed']}"
    text = row.get("calibration_text") or ("no text" if seed else "")
    return ", ".join(part for part in (text, windows, seed) if part)


def short_text(name: str) -> str:
    """A text's name without what stands after a comma: `World Factbook`."""
    return name.partition(",")[0]


def short_texts(names: Sequence[str]) -> list[str]:
    """Names of texts as short as they can be told apart."""
    short = [short_text(name) for name in names]
    return short if len(set(short)) == len(short) else list(names)


def time_ms(value: float | None, error: float | None = None) -> str:
    """`412 ms`, `2.3 ms`; with what it may be off by `412 ± 5 ms`."""
    return _off_by(value, error, 1 if value is not None and value < 10 else 0, " ms")


def speed(value: float | None, error: float | None = None) -> str:
    """`14.2 tokens/s`; with what it may be off by `14.2 ± 0.3 tokens/s`."""
    return _off_by(value, error, 1, " tokens/s")


def memory(value: float | None) -> str:
    """`0.52 GiB`."""
    return DASH if value is None else f"{value:.2f} GiB"


def _off_by(value: float | None, error: float | None, digits: int, unit: str) -> str:
    if value is None:
        return DASH
    text = f"{value:,.{digits}f}"
    return text + unit if error is None else f"{text} ± {_error(error, digits)}{unit}"


def _error(error: float, digits: int) -> str:
    """With as many digits as its value, or one digit that is not 0."""
    small = 0 < error < 0.5 * 10.0**-digits
    return f"{error:.1g}" if small else f"{error:,.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """`20.0 %`."""
    return DASH if share is None else f"{100 * share:.{digits}f} %"


def sparsity(of_block: float | None, of_all: float | None) -> str:
    """`20.0 % of block parameters, 15.8 % of all`."""
    if of_block is None:
        return DASH
    return f"{percent(of_block)} of block parameters, {percent(of_all)} of all"


def removed(metrics: Mapping[str, Any]) -> str:
    """What a run took away: where it had a budget first what is left of that, in the units asked for."""
    budgets = [str(each.get("words")) for each in metrics.get("budgets") or ()]
    return "; ".join([*budgets, sparsity(metrics.get("sparsity"), metrics.get("sparsity_total"))])


def all_cuts(metrics: Mapping[str, Any]) -> str:
    """What earlier cuts and this one took together; a dash where the model was not pruned before."""
    if metrics.get("base") is None:
        return DASH
    taken = sparsity(metrics.get("sparsity_base"), metrics.get("sparsity_total_base"))
    return f"{taken}, of {metrics['base']}"


def difference(before: float | None, after: float | None) -> str:
    """The change in percent with its sign: `−15.8 %`, `+126 %`, `×72,500`."""
    if before is None or after is None or not before or not math.isfinite(after):
        return DASH
    ratio = after / before
    if ratio >= 10:
        return f"×{ratio:,.0f}"
    change = 100 * (ratio - 1)
    if round(change, 1) == 0:
        return "0 %"
    return f"{'+' if change > 0 else '−'}{abs(change):.{0 if abs(change) >= 100 else 1}f} %"


def change(before: float | None, after: float | None, judged: Difference) -> str:
    """`+38.3 %`, and where `judged` says it may be chance `+1.2 %, within noise`."""
    return difference(before, after) + (", within noise" if judged.verdict == "noise" else "")


def signed(value: float) -> str:
    """A small number with its sign: `+0.75`, `−0.20`, `0.00`."""
    text = f"{abs(value):.2f}"
    return text if text == "0.00" else f"{'+' if value > 0 else '−'}{text}"


def duration(seconds: float | None) -> str:
    """`45 s`, `3 min 05 s`, `2 h 10 min`; empty if unknown."""
    if seconds is None or seconds < 0:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def age(then: float | None, now: float | None = None) -> str:
    """`just now`, `5 min ago`, `3 h ago`, `2 days ago`; a dash if unknown."""
    if not then:
        return DASH
    seconds = max(0.0, (time.time() if now is None else now) - then)
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{int(seconds / 60)} min ago"
    if seconds < 86400:
        return f"{int(seconds / 3600)} h ago"
    days = int(seconds / 86400)
    return f"{days} day{'s' if days > 1 else ''} ago"


def number(value: Any, form: str = ",.4g") -> str:
    """A number for people; a dash where there is none."""
    return "-" if value is None else format(value, form)


def with_error(value: Any, error: Any, form: str) -> str:
    """`0.6400 ± 0.0480`; without the error where it is unknown, a dash without a value."""
    both = value is not None and error is not None
    return f"{number(value, form)} ± {number(error, form)}" if both else number(value, form)
