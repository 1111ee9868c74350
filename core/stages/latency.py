"""The stages of a budget of time: this machine is timed before anything is cut, and the result afterwards."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median

from core.evaluate.latency import machine_of, time_machine, timed
from core.files import write_json
from core.plan.allocation import allocate
from core.plan.budgets import step_of
from core.plan.latency import Timings
from core.results.words import difference, time_ms
from core.runs.timings import LATENCY, Reached, keep_timings, kept_timings
from core.spec.budget import Budget, latency_of
from core.spec.run import RunSpec
from core.stages.work import State

#: A prediction that is off by more is worth a warning.
TOLERANCE = 0.1
#: Times whose middle half spans more of their median are taken again by the next run.
NOISY = 0.3
_ROUNDS = 9


def budgets_time(spec: RunSpec) -> bool:
    """Whether the run is to meet a time."""
    return spec.prunes and latency_of(spec.prune.target) is not None


def time_here(state: State) -> None:
    """Have the times of this model on this machine: those that are kept, or new ones.

    Raises:
        NotPrunableError: the time is out of reach here; says the least.
        LaunchError: memory does not hold the model twice.
    """
    work, asked, graph = state.work, state.work.spec.prune, state.graph
    budget, here, every = _budget(state), machine_of(state.loaded), kept_timings(graph, asked)
    timings = next((each for each in every if each.machine == here), None)
    if timings is None:
        if every:
            work.recorder.message(f"Kept times are of {every[0].machine}; this is {here}: timed anew")
        counter = work.recorder.counter("widths timed")
        step = step_of(asked.target, asked.multiple)
        timings = time_machine(state.loaded, graph, budget.reads, step, counter)
        if timings.spread_ms <= NOISY * timings.dense_ms:
            keep_timings(timings)
        else:
            work.recorder.warn(
                f"the machine is busy: half of the times of one model span {time_ms(timings.spread_ms)}; "
                "the prediction is rough, and these times are not kept for the next run"
            )
    state.timings = timings
    takes = f"{time_ms(timings.dense_ms)} for {budget.reads.words}"
    work.recorder.message(f"The model as it is takes {takes} on {here}")
    allocate(graph, None, **asked.allocation(), timings=timings)


def time_result(state: State) -> None:
    """Time the smaller model and keep how far that is from what was predicted."""
    work, budget, timings = state.work, _budget(state), _timings(state)
    models = {"dense": state.dense.model} if state.dense else {}
    rounds = timed({**models, "pruned": state.loaded.model}, budget.reads, rounds=_ROUNDS)
    now = rounds["pruned"]
    reached = Reached(
        timings,
        budget.most(timings.dense_ms),
        timings.predicted(state.graph, state.plan.removed),
        median(now),
        max(now) - min(now),
        median(rounds["dense"]) if models else None,
    )
    write_json(work.run_dir / LATENCY, asdict(reached))
    work.recorder.artifact(LATENCY)
    state.metrics |= {
        "latency_target_ms": reached.target,
        "latency_predicted_ms": reached.predicted,
        "latency_reached_ms": reached.measured,
        "latency_reached_spread_ms": reached.spread,
    }
    told = work.recorder.warn if abs(reached.error) > TOLERANCE else work.recorder.message
    told(words_of(reached, budget))


def words_of(reached: Reached, budget: Budget) -> str:
    """What was asked for, predicted and measured."""
    took, asked = time_ms(reached.measured), f"at most {time_ms(reached.target)} asked for"
    if budget.of_dense:
        took = f"{difference(reached.was, reached.measured)} ({took})"
        asked = f"{budget.plain} asked for, which is {time_ms(reached.target)}"
    text = (
        f"{took} for {budget.reads.words}: {asked}, "
        f"{time_ms(reached.predicted)} predicted ({difference(reached.predicted, reached.measured)})"
    )
    if reached.drift is not None and abs(reached.drift) > TOLERANCE:
        slower = difference(reached.timings.dense_ms, reached.dense)
        text += f"; the machine is not as it was when it was timed: the dense model takes {slower}"
    return text


def _budget(state: State) -> Budget:
    budget = latency_of(state.work.spec.prune.target)
    assert budget, "the stage is due where there is one"
    return budget


def _timings(state: State) -> Timings:
    assert state.timings, "the machine is timed first"
    return state.timings
