"""Values that a spec, a command and a function alike are asked for: is it one, and if not, what was meant."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from core.errors import SpecError
from core.registry import unknown

#: Ranges of layers by names that specs may hold; on a model of fewer layers they are refused.
LAYER_PRESETS = {"all": ":", "3-31": "3:31", "4-30": "4:30", "5-30": "5:30"}
#: 0 and a comma, then digits and no point: of shares that is a fraction, not two of them.
_DECIMAL_COMMA = re.compile(r"(?<![\d.])0,(\d+)(?![\d.])")


def check_sparsity(value: object) -> float:
    """Return `value` if it is a sparsity. Raises SpecError, with the number the user probably meant."""
    if is_number(value) and 0 <= value < 1:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    got = f"{value:g}" if isinstance(value, float) else str(value) or "nothing"
    meant = float(got) if is_number(value) and 1 < float(got) < 100 else 20.0
    raise SpecError(f"sparsity must be in [0, 1), got {got}; write {meant / 100:g} for {meant:g} %.")


def check_length(what: str, tokens: int, config: Any) -> None:
    """Raises SpecError where a model of this config reads fewer tokens at once."""
    limit = getattr(config, "max_position_embeddings", None)
    if limit and tokens > limit:
        raise SpecError(f"{what} is {tokens}, but this model reads {limit} tokens; give at most those.")


def check_name(what: str, given: str, available: Collection[str]) -> str:
    """Return `given` if it is available. Raises SpecError with the nearest name there is."""
    if given in available:
        return given
    raise SpecError(str(unknown(what, given, list(available))))


def check_kind_sparsity(targets: Mapping[str, float], kinds: Sequence[str]) -> None:
    """Raises SpecError for a kind that does not go, or a target that is not a sparsity."""
    for kind in targets:
        if kind not in kinds:
            raise SpecError(
                f"kind_sparsity names {kind}, which is not among the kinds that may go ({', '.join(kinds)}); "
                "add it to kinds, or leave it out."
            )
    check_targets(targets)


def check_targets(given: Any) -> Any:
    """Return `given` if every value of this object is a sparsity. Raises SpecError, naming the kind."""
    for kind, target in given.items() if isinstance(given, Mapping) else ():
        try:
            check_sparsity(target)
        except SpecError as error:
            raise SpecError(f"kind_sparsity of {kind}: {error}") from error
    return given


def parse_kind_sparsity(entries: Iterable[str]) -> dict[str, float]:
    """Read `ffn_channel=0.3,query_head=10 %`, …. Raises SpecError."""
    targets = {}
    text = _DECIMAL_COMMA.sub(r"0.\1", ",".join(entries))
    text = re.sub(",?=,?", "=", text).replace(",%", "%")  # a form parts at blanks
    for entry in filter(str.strip, text.split(",")):
        kind, equals, target = entry.partition("=")
        if not equals:
            raise SpecError(
                f"kind_sparsity takes kind=sparsity, got {entry.strip()!r}; "
                "write ffn_channel=0.3,query_head=0.1."
            )
        targets[kind.strip()] = parse_sparsity(target.strip())
    return targets


def kind_sparsity_entries(targets: Mapping[str, float]) -> list[str]:
    """What `parse_kind_sparsity` reads."""
    return [f"{kind}={target}" for kind, target in targets.items()]


def parse_multiple(given: str | int) -> int:
    """Read of which multiple widths are, `none` for any. Raises SpecError."""
    if given == "none":
        return 1
    try:
        return int(given)
    except ValueError as error:
        raise SpecError(f"align must be none, 32, 64, 128 or 256, got {given!r}.") from error


def multiple_entries(multiple: int) -> list[str]:
    """What `parse_multiple` reads."""
    return ["none" if multiple == 1 else str(multiple)]


def parse_sparsity(text: str) -> float:
    """Read a sparsity as it is typed. Raises SpecError."""
    share = parse_share(text)
    fits = is_number(share) and 0 <= share < 1
    return check_sparsity(share if fits or "%" not in text else text.strip())


def parse_share(typed: Any) -> Any:
    """Read a share as it is typed: `0.2`, `0,2`, `20 %` or `20%`. What is none of them stays as it is."""
    if not isinstance(typed, str):
        return typed
    number = typed.strip().replace(",", ".")
    try:
        return float(f"{number[:-1].rstrip()}e-2" if number.endswith("%") else number)
    except ValueError:
        return typed.strip()


def parse_shares(typed: Any) -> Any:
    """Read shares that commas separate; `0,2` is one of them, since 2 is no share."""
    parts = _DECIMAL_COMMA.sub(r"0.\1", typed).split(",") if isinstance(typed, str) else typed
    return tuple(parse_share(part) for part in parts if str(part).strip())


def check_tau(value: object) -> float:
    """Return `value` if it is a threshold. Raises SpecError."""
    if is_number(value) and 0 <= value <= 1:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise SpecError(f"tau must be in [0, 1], got {value}; the papers use 0.16 to 0.2.")


def check_layers(value: Any) -> Any:
    """Return `value` if it may be a range of layers, or None for all. Raises SpecError."""
    if value is not None:
        parse_layers(value if isinstance(value, str) else repr(value))
    return value


def parse_layers(text: str, layers: int | None = None) -> range:
    """Read `first:last`, counted from 0, last not included.

    Args:
        text: e.g. `3:31`, `:12`, `5:`, or a name of `LAYER_PRESETS`.
        layers: how many the model has; an open end needs it, and the range is checked against it.

    Raises:
        SpecError: not of that form, empty, or a layer that does not exist.
    """
    text = LAYER_PRESETS.get(text.strip(), text)
    ends = [end.strip() for end in text.split(":")]
    if len(ends) != 2 or not all(end.isdecimal() or not end for end in ends):
        raise SpecError(_no_range(text, layers))
    first = int(ends[0] or 0)
    last = int(ends[1]) if ends[1] else (layers if layers is not None else first + 1)
    if layers is not None and max(first + 1, last) > layers:
        raise SpecError(
            f"layers {text} goes past the model, which has layers 0 to {layers - 1}; write :{layers} for all."
        )
    if first >= last:
        raise SpecError(f"layers {text} is empty; first must be below last, which is not included.")
    return range(first, last)


def _no_range(text: str, layers: int | None) -> str:
    """What is said of a text that is no range of layers, with what was probably meant."""
    joined = re.fullmatch(r"\s*(\d+)\s*[-–]\s*(\d+)\s*", text)
    if joined:
        first, last = joined.groups()
        meant = f"write {first}:{int(last) + 1} if layer {last} goes too, {first}:{last} if it stays"
    elif re.search(r"-\s*\d", text):
        end = f":{layers - 1}" if layers is not None and layers > 1 else ":29 of a model with 30 layers"
        meant = f"layers are counted from 0 and from the front only; write {end} for all but the last"
    else:
        meant = "an end may be left out, as in 3: or :30"
    return f"layers must be first:last, for example 4:30, got {text!r}; {meant}."


def require(holds: bool, name: str, got: object, wanted: str) -> None:
    """Raises SpecError unless the condition holds."""
    if not holds:
        raise SpecError(f"{name} must be {wanted}, got {got!r}.")


def is_number(value: object) -> bool:
    """Whether it is a finite number; True and False are none."""
    whole = isinstance(value, int) and not isinstance(value, bool)  # of any length: no float holds some
    return whole or (isinstance(value, float) and math.isfinite(value))
