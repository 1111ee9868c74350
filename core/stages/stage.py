"""A stage of a run, declared once: what people see of a run and what it calls come from the same list."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from core.capture.peak import forget_peak, peak_gib
from core.spec.run import RunSpec
from core.stages.work import State


def always(spec: RunSpec) -> bool:
    """Every run has this stage."""
    return True


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: in `status.json`, events and the log; title: what people read.
        run: does it with what the stages before have left in the state.
        when: whether a run of this spec has it; otherwise it is neither shown nor called.
    """

    name: str
    title: str
    run: Callable[[State], None]
    when: Callable[[RunSpec], bool] = always


@dataclass(frozen=True)
class Repeated:
    """Stages that a run goes through once for every state that `over` gives."""

    over: Callable[[State], Iterable[State]]
    stages: tuple[Stage, ...]


def due(spec: RunSpec, parts: Sequence[Stage | Repeated]) -> list[Stage]:
    """The stages that a run of this spec has, in order, each once."""
    stages = [stage for part in parts for stage in (part.stages if isinstance(part, Repeated) else [part])]
    return [stage for stage in stages if stage.when(spec)]


def run_stages(state: State, parts: Sequence[Stage | Repeated]) -> None:
    """Say which stages there are, then announce, call and time each. Raises what they raise."""
    state.work.recorder.begin({stage.name: stage.title for stage in due(state.work.spec, parts)})
    _go_through(state, parts)


def _go_through(state: State, parts: Sequence[Stage | Repeated]) -> None:
    for part in parts:
        if isinstance(part, Repeated):
            for own in part.over(state):
                _go_through(own, part.stages)
                state.peak_gib = max(state.peak_gib, own.peak_gib)  # `own` may be a copy
        elif part.when(state.work.spec):
            state.work.recorder.stage(part.name)
            began = time.monotonic()
            part.run(state)
            state.work.recorder.log(f"{part.name} took {time.monotonic() - began:.1f} s{_peak(state)}")


def _peak(state: State) -> str:
    """What the stage held at most, for the log; kept as the run's if no stage before held as much."""
    if not hasattr(state, "loaded"):
        return ""
    device = state.loaded.device
    peak = peak_gib(device)
    forget_peak(device)
    state.peak_gib = max(peak, state.peak_gib)
    return f", {peak:.2f} GiB of memory at most"
