"""The whole story of a run in verbs: load, graph, capture, score, plan, surgery, recover, evaluate, export.

A stage whose artifact is there and undamaged is not repeated, so a resumed run ends as one that was
never interrupted. Each goal below reads from top to bottom.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core.evaluate import dense as reference
from core.memory.here import foreseen
from core.methods import criteria_of, method_of
from core.recover import written
from core.runs.artifacts import read_plan
from core.runs.recorder import Recorder
from core.spec.run import RunSpec
from core.stages import (
    ablate,
    blocks,
    explore,
    export,
    latency,
    measure,
    metrics,
    nuteprune,
    reconstruct,
    recover,
    result,
    search,
    steps,
    sweep,
    teacher,
)
from core.stages.benchmark import benchmark, scored_earlier
from core.stages.check import check_device
from core.stages.early import config_only
from core.stages.stage import Repeated, Stage, run_stages
from core.stages.work import State, Work, ablates, kept, needs, searches


def learns(spec: RunSpec) -> bool:
    """Whether training finds what goes."""
    return method_of(spec) is not None


def ranks(spec: RunSpec) -> bool:
    """Whether units are scored."""
    return bool(criteria_of(spec))


def drops(spec: RunSpec) -> bool:
    """Whether whole blocks go first."""
    return bool(spec.prune.drop)


def trains(spec: RunSpec) -> bool:
    """Whether the pruned model is trained."""
    return spec.recover.method != "none"


def search_plan(state: State) -> None:
    """Search for the plan, unless it is kept."""
    if kept(read_plan, state.work.run_dir) is None:
        state.searched = search.searched(state.work, state, state.scores)


def keeps_teacher(spec: RunSpec) -> bool:
    """Whether what the teacher says is kept on disk."""
    return spec.recover.distils and spec.recover.top_k > 0


def write_training_text(state: State) -> None:
    """Let the dense model write what is not kept of the text that it writes."""
    work = state.work
    if parts := written.missing(work.spec, work.run_dir):
        dense = state.loaded if work.spec.goal == "prune" else teacher.dense_model(work)
        counter = work.recorder.counter("tokens written by the dense model")
        written.write(work.spec, work.run_dir, dense.model, parts, counter)


def load_pruned(state: State) -> None:
    """Load the result of a pruning run, with its graph, its plan and what was scored of the dense model."""
    steps.load(state)
    state.graph, state.plan = recover.plan_of_pruned(state.work, state.loaded)
    scored_earlier(state)


def measure_pruned(state: State) -> None:
    """Measure the result of a pruning run, beside the dense model as that run measured it."""
    measure.before_training(state)
    measure.earlier(state)


def train_pruned(state: State) -> None:
    """Train the pruned model in place."""
    state.metrics |= recover.recover(state.work, state.loaded, state.graph)
    result.settle(state)


def evaluate_alone(state: State) -> None:
    """Measure a model, or the result of a finished run."""
    measure.alone(state)
    state.metrics = metrics.evaluating(state)


LOAD = Stage("load", "Loading the model", steps.load, lambda spec: not config_only(spec))
GRAPH = Stage("graph", "Finding coupled groups", steps.graph)
WRITE = Stage("write", "Letting the dense model write training text", write_training_text, written.writes)
TIME = Stage("time", "Timing this machine", latency.time_here, latency.budgets_time)
TEACH = Stage("teach", "Keeping what the teacher says", teacher.keep, keeps_teacher)
BASELINE = Stage("baseline", "Measuring the dense model", measure.baseline)
CAPTURE = Stage(
    "capture",
    "Collecting statistics on calibration text",
    steps.capture,
    lambda spec: bool(needs(criteria_of(spec))),
)
SCORE = Stage("score", "Scoring units", steps.score, ranks)
BLOCKS = Stage("blocks", "Measuring what whole blocks are worth", blocks.measure, drops)
SEARCH = Stage("search", "Searching how much each group gives", search_plan, searches)
PLAN = Stage("plan", "Planning what to remove", steps.plan, lambda spec: not learns(spec))
MEASURE = Stage("measure", "Measuring the model before its training", measure.before_training, trains)
CONTROL = Stage("control", "Training the dense model on the same text", recover.control, recover.controls)
EVALUATE = Stage("evaluate", "Measuring before and after", measure.after)
#: The pruned model is trained, measured and saved.
LAST = (
    benchmark("pruned", "tasks_pruned", trains),
    Stage("recover", "Recovering quality", train_pruned, trains),
    CONTROL,
    EVALUATE,
    benchmark("recovered", "tasks_after", trains),
    benchmark("pruned", "tasks_after", lambda spec: not trains(spec)),
    Stage("export", "Saving the smaller model", result.export),
)
RECONSTRUCT = Stage(
    "reconstruct",
    "Refitting what stays",
    reconstruct.reconstruct,
    lambda spec: spec.prune.reconstruct != "none",
)
SURGERY = Stage("surgery", "Cutting the model", result.surgery)
#: All that is wanted of the dense model.
FIRST = (LOAD, GRAPH, TIME, WRITE, TEACH, BASELINE, benchmark("dense", "tasks_before"))
#: Measure the dense model, cut it to the target, train it if that is asked for, measure it again, save it.
PRUNE = (
    *FIRST,
    CAPTURE,
    SCORE,
    Stage("train", "Learning what goes", nuteprune.learn, learns),
    replace(PLAN, run=nuteprune.plan, when=learns),
    BLOCKS,
    SEARCH,
    PLAN,
    RECONSTRUCT,
    SURGERY,
    Stage("retime", "Timing the smaller model", latency.time_result, latency.budgets_time),
    MEASURE,
    *LAST,
)
#: The same part by part: each is scored, cut and refitted, and the next one is of what is left.
PRUNE_IN_ROUNDS = (
    *FIRST,
    Repeated(result.rounds, (CAPTURE, SCORE, replace(PLAN, run=result.plan_round), RECONSTRUCT, SURGERY)),
    MEASURE,
    *LAST,
)
#: Measure one plan with its couplings, then with every matrix cut by its own scores; if asked for, train both
#: and measure them again. No model is saved.
ABLATE = (
    LOAD,
    GRAPH,
    TIME,
    WRITE,
    TEACH,
    BASELINE,
    CAPTURE,
    SCORE,
    SEARCH,
    PLAN,
    Stage("measure", "Measuring the plan with its couplings", ablate.measure_coupled),
    Stage("recover_coupled", "Recovering the cut with its couplings", ablate.recover_coupled, trains),
    Stage("cut_alone", "Cutting every matrix by itself", ablate.cut_alone, trains),
    Stage("recover", "Recovering the cut without couplings", train_pruned, trains),
    CONTROL,
    replace(EVALUATE, run=ablate.evaluate),
)
#: Train the result of a pruning run, measure it before and after, and save it with the same plan.
RECOVER = (
    Stage("refer", "Reading what the dense model expects", teacher.refer),
    WRITE,
    TEACH,
    replace(LOAD, run=load_pruned),
    replace(MEASURE, run=measure_pruned),
    *LAST,
)
#: Find out about a model without changing it: the analyses that are asked for.
EXPLORE = (
    LOAD,
    GRAPH,
    Stage(
        "similarity",
        "Comparing attention heads",
        explore.similarity,
        lambda spec: "similarity" in spec.explore.analyses,
    ),
    CAPTURE,
    SCORE,
    Stage(
        "sensitivity",
        "Measuring each layer's sensitivity",
        explore.sensitivity,
        lambda spec: "sensitivity" in spec.explore.analyses,
    ),
)
#: Measure a model as it is.
EVALUATE_ALONE = (LOAD, Stage("evaluate", "Measuring the model", evaluate_alone), benchmark("model", "tasks"))
#: Measure many ways to prune a model; whatever is measured stays, stopped or not.
SWEEP = (
    LOAD,
    GRAPH,
    replace(BASELINE, run=sweep.baseline),
    Repeated(sweep.passes, (CAPTURE, SCORE, Stage("sweep", "Measuring point after point", sweep.measure))),
)
#: Write the result of a pruning run in a format for others.
EXPORT = (
    Stage("check", "Looking whether the format holds the model", export.check),
    Stage("write", "Writing the files", export.write),
)
GOALS: dict[str, tuple[Stage | Repeated, ...]] = {
    "explore": EXPLORE,
    "prune": PRUNE,
    "recover": RECOVER,
    "evaluate": EVALUATE_ALONE,
    "sweep": SWEEP,
    "export": EXPORT,
}


def parts_of(spec: RunSpec) -> tuple[Stage | Repeated, ...]:
    """What a run of this goal goes through, as far as it is due."""
    if spec.goal == "prune" and spec.prune.rounds > 1:
        return PRUNE_IN_ROUNDS
    return ABLATE if ablates(spec) else GOALS[spec.goal]


def run(spec: RunSpec, run_dir: Path, recorder: Recorder) -> None:
    """Do what `spec` asks and leave every artifact in `run_dir`.

    Raises:
        PruneError: what cannot be done, or StopRequested.
    """
    check_device(spec)  # a request from the page was not looked at yet
    measured = ablate.untimed(spec) if ablates(spec) else spec
    state = State(Work(measured, run_dir, recorder), run_dir, foreseen=foreseen(measured))
    if state.foreseen is not None:
        recorder.message(f"The run {state.foreseen.words}")
        if state.foreseen.advice:
            recorder.warn(state.foreseen.advice)
    run_stages(state, parts_of(spec))
    metrics.write(state)
    recover.forget(state.work)
    reconstruct.forget(state.work)
    result.forget_rounds(state.work)
    nuteprune.forget(run_dir)
    reference.forget(run_dir)
    written.forget(run_dir)
