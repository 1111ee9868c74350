"""A training as part of a run: its steps are told one by one, and a stop waits for the one at work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from core.errors import StopRequested
from core.recover.loop import Loop
from core.runs.processes import signals_wait
from core.runs.recorder import Recorder

R = TypeVar("R")


def run(recorder: Recorder, loop: Loop[R], on_step: Callable[[R], None] = lambda report: None) -> None:
    """Take the steps that are left, and say after which step that is.

    Args:
        on_step: told what there is to tell of each.

    Raises:
        StopRequested: after the step at work, which is saved, whoever asked.
        TrainingError, StorageError: the checkpoint before stays good.
    """
    state, steps = loop.state, loop.training.course.steps

    def tell(report: R) -> None:
        if state.in_a_row:
            recorder.message(
                f"Step {state.step - 1} is skipped: its loss is not finite ({state.skipped} so far)"
            )
        on_step(report)

    recorder.goes_on(state.step)
    if state.step:
        recorder.message(f"Training goes on after step {state.step} of {steps}")
    with signals_wait(recorder.run_dir):
        try:
            loop.run(tell, recorder.counter("steps"))
        except StopRequested:
            recorder.message(f"Stopped after step {state.step} of {steps}, which is saved")
            raise
