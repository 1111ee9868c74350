"""How many windows go through a model at once, and what a pass keeps meanwhile: as much as memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from core.errors import DataError

#: Of the free memory, what a pass may plan with: the estimate leaves out what operations need in between.
_PLANNED = 0.6
#: Windows at a time where nothing is gained by more.
FEW = 4
GIB = 2**30


@dataclass(frozen=True)
class Reading:
    """How a pass reads its windows.

    Attributes:
        size: windows at a time.
        sweeps: for each reading of all windows the parameters whose gradients are taken, at least one.
        words: what is kept, in GiB, and for how long; empty if nothing grows beyond a window's activations.
    """

    size: int
    sweeps: tuple[frozenset[str], ...] = (frozenset(),)
    words: str = ""


@dataclass(frozen=True)
class Needed:
    """Bytes that a pass needs beside the weights.

    Attributes:
        window: activations of one window that its backward reads; 0 where one at a time is read anyway.
        kept: of every parameter, the terms that are kept until the last window, unless all go at once.
        free: what the device has.
    """

    window: int
    kept: Mapping[str, int]
    free: int


def reading(windows: int, needed: Needed, *, each: bool, size: int | None) -> Reading:
    """All windows at once if memory holds them, else few at a time, and the layers in parts if need be.

    Args:
        windows: how many there are.
        each: one window at a time, since every sample's own gradient is needed.
        size: how many at a time, if it is given.

    Raises:
        DataError: not even one window and one parameter's terms fit.
    """
    everything, planned = frozenset(needed.kept), int(needed.free * _PLANNED)
    if each:
        size = 1
    elif size is None:
        size = windows if windows * needed.window <= planned else min(FEW, windows)
        size = size if size == windows else max(1, min(size, planned // max(1, needed.window)))
    size = min(size, windows)
    if size == windows:
        return Reading(size, (everything,), _at_once(windows, needed) if windows > 1 else "")
    largest, activations = max(needed.kept.values()), size * needed.window
    if activations + largest > needed.free:
        raise DataError(_too_little(size, activations, largest, needed.free))
    sweeps = tuple(_sweeps(needed.kept, max(planned - activations, largest)))
    return Reading(size, sweeps, _in_turns(windows, size, sweeps, needed))


def _sweeps(kept: Mapping[str, int], room: int) -> Iterator[frozenset[str]]:
    """Parameters in order, in parts whose terms fit into `room` bytes."""
    names: list[str] = []
    used = 0
    for name, size in kept.items():
        if names and used + size > room:
            yield frozenset(names)
            names, used = [], 0
        names.append(name)
        used += size
    yield frozenset(names)


def _at_once(windows: int, needed: Needed) -> str:
    return (
        f"All {windows} windows go through at once: about {_gib(windows * needed.window)} of activations "
        f"beside the weights, of {_gib(needed.free)} that are free; no gradient is kept"
    )


def _in_turns(windows: int, size: int, sweeps: tuple[frozenset[str], ...], needed: Needed) -> str:
    kept = max(sum(needed.kept[name] for name in names) for names in sweeps)
    activations = f"about {_gib(size * needed.window)} of activations and " if needed.window else ""
    times = (
        "" if len(sweeps) == 1 else f"; the text is read {len(sweeps)} times, for a part of the layers each"
    )
    return (
        f"{windows} windows go through {size} at a time: {activations}{_gib(kept)} of signed terms, one for "
        f"every weight in scope, beside the weights, of {_gib(needed.free)} that are free{times}"
    )


def _too_little(size: int, activations: int, largest: int, free: int) -> str:
    return (
        f"Windows that go through {size} at a time need {_gib(activations)} for activations and "
        f"{_gib(largest)} for the terms of the largest parameter, and {_gib(free)} are free. Take shorter "
        "windows (--length), fewer at a time (--calibration-batch), or a criterion that keeps nothing: "
        "taylor_first_per_sample."
    )


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"
