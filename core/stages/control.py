"""The dense model trained on what the pruned one is trained on: learning a text is no repair.

What training gives a pruned model is repair in so far as it is more than the same text gives a model from
which nothing was cut.
"""

from __future__ import annotations

from dataclasses import replace

from core.results.measured import Measured
from core.spec.run import RunSpec
from core.stages import measure, recover, teacher
from core.stages.work import State, silent

#: What it is called among the sides of a run; the control as a resumed run finds it.
SIDE, MEASURED = "control", "control.json"


def controls(spec: RunSpec) -> bool:
    """Whether the dense model is trained beside the pruned one."""
    return spec.recover.controls


def control(state: State) -> None:
    """Train the dense model with LoRA on the same sequences, and measure it: perplexity alone."""
    state.control = measure.kept_or(state.work, MEASURED, lambda: _trained(state))
    measure.tell(state.work, f"ppl_{SIDE}", state.control)


def _trained(state: State) -> Measured:
    work = state.work
    work = silent(replace(work, spec=replace(work.spec, recover=work.spec.recover.of_control())))
    dense = teacher.dense_model(work)
    recover.recover(work, dense, state.graph, recover.CONTROL)
    return measure.quality(work, dense, SIDE)
